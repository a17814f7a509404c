// Operators whose calls wait until they have run, because the program says so.
#pragma once

#include <string>

#include "operator.h"

namespace genie {

// `name` is an operator's with its overload: aten::add.Tensor.
void set_trigger(const std::string& name, bool waits);

bool has_triggers() noexcept;

// Waits for what was recorded, if `op` is one of them.
void wait_if_trigger(const Operator& op);

}  // namespace genie
