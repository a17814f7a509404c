// Tensors that are made of others: sparse, compressed and nested ones.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <torch/library.h>

namespace genie {

// Runs an operator on CPU copies of its arguments, whatever they are made of. What it writes is copied back.
void run_composed_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);
// The same, of what is nothing to warn of.
void run_composed_quietly(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// What sparse tensors do by operators on their parts.
void register_sparse(torch::Library& sparse);
// Indices of compressed tensors, which are dense ones.
void register_compressed(torch::Library& dense);
// Between padded tensors and ones without padding.
void register_jagged(torch::Library& dense);
// Quantised tensors of the device, and those of this machine that go there.
void register_quantised(torch::Library& quantised, torch::Library& quantised_here);
// What nested tensors do by operators on padded ones.
void register_nested(torch::Library& nested);

}  // namespace genie
