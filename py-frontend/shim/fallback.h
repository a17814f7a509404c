// Operators that the node does not have: they run here, on copies of their arguments, whatever those are made of.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/Device.h>

#include <optional>

namespace genie {

// The remote device that a call is of: the one that it names, or that of its first remote tensor.
std::optional<c10::Device> device_of(c10::ArrayRef<c10::IValue> arguments);

// Runs an operator on CPU copies of its arguments; copies back what it writes. Warns once for each operator.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// The same, of what is nothing to warn of.
void run_quietly_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace genie
