// One call of an operator, with what libtorch leaves to its callers.
#pragma once

#include "arguments.h"

namespace genie {

// Checks the arguments, runs the operator on as many threads as its work is worth, checks the
// results, which `stack` holds afterwards.
void invoke(const Operator& op, const GenieCall& call, torch::jit::Stack& stack);

} // namespace genie
