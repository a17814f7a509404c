// What a tensor is made of, here and there.
#pragma once

#include <ATen/core/Tensor.h>

namespace genie {

// The same tensor, whatever it is made of, on another device.
at::Tensor to_device(const at::Tensor& tensor, c10::Device device);

// Makes a tensor what another is, whose parts are on the CPU.
void put_into(const at::Tensor& tensor, const at::Tensor& local);

}  // namespace genie
