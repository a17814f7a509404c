// Tensors as strided views of storages, checked against the storage's bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include "dispatch.h"
#include "skeleton.h"

namespace genie {

// The device of this executor.
c10::Device device();

inline c10::StorageImpl* impl(const GenieStorage* storage) {
  return reinterpret_cast<c10::StorageImpl*>(const_cast<GenieStorage*>(storage));
}

// The dtype of this number; throws ProtocolError where Genie carries no such type.
c10::ScalarType checked_dtype(uint8_t dtype);

// Throws ProtocolError unless the view lies inside its storage.
at::Tensor make_view(const GenieView& view);

// Gives up the tensor's storage as one owned reference.
GenieStorage* take_storage(const at::Tensor& tensor);

} // namespace genie
