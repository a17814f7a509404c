// What a tensor is made of, here and there.
#pragma once

#include <ATen/core/Tensor.h>

namespace genie {

// Whether a tensor is made of what a device can hold.
bool has_parts(const at::Tensor& tensor);

// Whether a tensor is elements in strides, and nothing else.
bool is_plain(const at::Tensor& tensor);

// What holds a tensor's elements: the tensor itself, or a part of it.
at::Tensor elements_of(const at::Tensor& tensor);

// The same tensor, whatever it is made of, on another device.
at::Tensor to_device(const at::Tensor& tensor, c10::Device device);

// Makes a sparse tensor one of these parts, of the shape of `like`.
void set_parts(
    const at::Tensor& sparse,
    const at::Tensor& like,
    const at::Tensor& indices,
    const at::Tensor& values,
    bool is_coalesced);

// Makes a tensor what another is, whose parts are on the CPU.
void put_into(const at::Tensor& tensor, const at::Tensor& local);

}  // namespace genie
