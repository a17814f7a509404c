// Operators that the node does not have: they run here, on copies.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace genie {

// Says so once for each operator.
void warn_of_fallback(const c10::OperatorHandle& op);

// Runs an operator on CPU copies of its arguments; copies back what it writes. Warns once for each
// operator.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace genie
