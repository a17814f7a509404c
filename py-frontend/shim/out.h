// `out=` of operators whose results only the node can describe.
#pragma once

#include <ATen/core/stack.h>

#include <optional>

#include "operator.h"

namespace genie {

// The operator that gives as new tensors what this one writes to those that it is given.
std::optional<c10::OperatorHandle> find_functional(const c10::OperatorHandle& op);

// Calls it, and puts its results where they are wanted: a tensor of another size becomes like the result, as
// PyTorch would have it.
void fill_out(const Operator& op, torch::jit::Stack& stack);

}  // namespace genie
