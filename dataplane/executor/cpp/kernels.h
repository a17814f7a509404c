// Operators that libtorch has on CUDA only, or wrongly, made of others for the host device. They are
// registered in the dispatcher, under the CPU key.
#pragma once

namespace torch {
class Library;
}

namespace genie {

void register_attention(torch::Library& aten);
void register_eigenvalues(torch::Library& aten);
void register_histogram(torch::Library& aten);
void register_recurrent(torch::Library& aten);

} // namespace genie
