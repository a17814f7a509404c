// Calls with lists that are recorded as several: longer than one record holds (the bounds of
// controlplane/session, by log_limits.h), or of tensors in several places.
#pragma once

#include <ATen/core/stack.h>

#include "operator.h"

namespace genie {

// Whether the lists of a call may be too long for one record.
bool is_long(const Operator& op, Arguments arguments);

// Records such a call as several, where that is the same; else false, and nothing was recorded.
// What is not taken apart is refused when it is encoded.
bool record_in_parts(const Operator& op, torch::jit::Stack& stack);

// Records a call that does the same to each item of its lists as one for each device that holds some
// of them, in a session whose program chooses no device. False where one is enough, and nothing was
// recorded.
bool record_by_place(const Operator& op, torch::jit::Stack& stack);

}  // namespace genie
