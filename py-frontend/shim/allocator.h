// Storages whose bytes are elsewhere.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include "backend.h"

namespace genie {

// Of a handle, those below the number of its device.
inline constexpr unsigned kHandleIdBits = 48;

// A storage for a handle that the recorder gave; frees the handle when it goes.
c10::Storage adopt_storage(GenieStorage handle, uint64_t nbytes, c10::DeviceIndex device);

// The handle of a storage, or 0 when it is not one of ours.
GenieStorage handle_or_zero(c10::StorageImpl& storage) noexcept;

// The handle of a tensor on a remote accelerator. Throws when it has none.
GenieStorage handle_of(const at::TensorBase& tensor);

// Changes a storage's size here and on the node; keeps the bytes that fit.
void resize_storage(c10::StorageImpl& storage, uint64_t nbytes);

// A dense tensor that owns `storage`, of which it is the whole.
at::Tensor make_tensor(
    c10::Storage storage,
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides);

// A new tensor of uninitialised elements.
at::Tensor allocate_tensor(
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides,
    c10::DeviceIndex device);

}  // namespace genie
