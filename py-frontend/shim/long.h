// Calls with longer lists than one record holds (the bounds of controlplane/session, by
// log_limits.h).
#pragma once

#include <ATen/core/stack.h>

#include "operator.h"

namespace genie {

// Whether the lists of a call may be too long for one record.
bool is_long(const Operator& op, Arguments arguments);

// Records such a call as several, where that is the same; else false, and nothing was recorded.
// What is not taken apart is refused when it is encoded.
bool record_in_parts(const Operator& op, torch::jit::Stack& stack);

}  // namespace genie
