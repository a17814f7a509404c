// Recording one operator call.
#pragma once

#include <ATen/core/stack.h>
#include <torch/library.h>

#include "operator.h"

namespace genie {

// Records a call with the arguments on top of the stack, and replaces them by its results.
void record(const Operator& op, torch::jit::Stack& stack);

// A kernel that records the operator it is registered for.
torch::CppFunction recorder_kernel();

// An operator's record by name, for kernels that record another call than the one they are for.
// Keep it: looking up is slow.
const Operator& operator_named(const char* name, const char* overload);

// Records `op` and returns its only result.
at::Tensor record_one(const Operator& op, torch::jit::Stack arguments);

}  // namespace genie
