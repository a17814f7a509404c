// Operators that the node does not have: they run here, on copies of their arguments, whatever those are made of.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace genie {

// Runs an operator on CPU copies of its arguments; copies back what it writes. Warns once for each operator.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// The same, of what is nothing to warn of.
void run_quietly_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace genie
