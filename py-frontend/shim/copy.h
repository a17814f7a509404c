// Bytes to and from the node.
#pragma once

#include <ATen/core/Tensor.h>

#include "backend.h"

namespace genie {

// A new tensor on `device` with the bytes of a CPU tensor, contiguous.
at::Tensor upload(const at::Tensor& source, c10::Device device);

// The elements of a remote tensor, contiguous on the CPU.
at::Tensor fetch(const at::Tensor& source);

}  // namespace genie
