// Tensors that are made of others: sparse, compressed and nested ones.
#pragma once

#include <torch/library.h>

namespace genie {

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
