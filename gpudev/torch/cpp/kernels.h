// Operators that libtorch has on CUDA only, made of others for the host device. They are
// registered in the dispatcher, under the CPU key.
#pragma once

namespace genie {

// Registers all of them, once.
void register_kernels();

} // namespace genie
