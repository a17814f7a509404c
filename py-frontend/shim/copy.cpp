#include "copy.h"

#include <ATen/ExpandUtils.h>
#include <ATen/ops/_to_copy_native.h>
#include <c10/util/Exception.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include "ahead.h"
#include "allocator.h"
#include "errors.h"
#include "host_memory.h"
#include "kernels.h"
#include "record.h"
#include "skeleton.h"

namespace genie {
namespace {

using at::Tensor;

GenieView view_of(const Tensor& tensor) {
  check_dims(static_cast<size_t>(tensor.dim()));
  GenieView view{};
  view.storage = handle_of(tensor);
  view.flags = static_cast<uint8_t>(
      (tensor.is_neg() ? flag::NEGATIVE : 0) | (tensor.is_conj() ? flag::CONJUGATE : 0));
  view.dtype = static_cast<uint8_t>(tensor.scalar_type());
  view.offset = tensor.storage_offset();
  view.sizes = tensor.sizes().data();
  view.strides = tensor.strides().data();
  view.ndim = static_cast<size_t>(tensor.dim());
  return view;
}

void fetch_into(const Tensor& source, const Tensor& contiguous) {
  if (source.numel() == 0) {
    return;
  }
  const GenieView view = view_of(source);
  const auto next = next_looks(view.storage, contiguous.nbytes());
  check(genie_fetch(
      &view,
      contiguous.mutable_data_ptr(),
      contiguous.nbytes(),
      source.storage().nbytes(),
      next.data(),
      next.size()));
}

// True when an upload may overwrite the storage under `tensor` as a whole.
bool is_whole_storage(const Tensor& tensor) {
  return tensor.is_contiguous() && tensor.storage_offset() == 0 && !tensor.is_conj() &&
      !tensor.is_neg() && tensor.nbytes() == tensor.storage().nbytes();
}

const Operator& copy_operator() {
  static const Operator& op = operator_named("aten::copy_", "");
  return op;
}

void record_copy(const Tensor& destination, const Tensor& source) {
  record_one(copy_operator(), {destination, source, /*non_blocking=*/false});
}

// Zeros that autograd made have no memory to send.
Tensor with_memory(const Tensor& tensor) {
  return tensor._is_zerotensor() ? at::zeros(tensor.sizes(), tensor.options()) : tensor;
}

void to_remote(const Tensor& destination, const Tensor& given) {
  const Tensor source = with_memory(given);
  if (destination.numel() == 0) {
    return;
  }
  // A 0-dimensional tensor travels inside the call.
  if (source.dim() == 0 && !is_whole_storage(destination)) {
    record_copy(destination, source);
    return;
  }
  // Materialised on the CPU: dtype, layout, and conjugate and negative bits.
  const Tensor bytes = source.to(destination.scalar_type()).contiguous().resolve_conj().resolve_neg();
  if (is_whole_storage(destination) && bytes.sizes().equals(destination.sizes())) {
    check(genie_upload(handle_of(destination), bytes.const_data_ptr(), bytes.nbytes()));
    return;
  }
  record_copy(destination, upload(bytes, destination.device()));
}

// The same elements on another device of the session, contiguous.
Tensor move_to(const Tensor& source, c10::DeviceIndex device) {
  const auto strides = c10::contiguous_strides(source.sizes());
  if (source.numel() == 0) {
    return allocate_tensor(source.scalar_type(), source.sizes(), strides, device);
  }
  const uint64_t nbytes =
      static_cast<uint64_t>(source.numel()) * c10::elementSize(source.scalar_type());
  const GenieView view = view_of(source);
  GenieStorage moved = 0;
  check(genie_move(&view, device, nbytes, &moved));
  return make_tensor(
      adopt_storage(moved, nbytes, device), source.scalar_type(), source.sizes(), strides);
}

void from_remote(const Tensor& destination, const Tensor& source) {
  if (destination.numel() == 0) {
    return;
  }
  if (destination.is_contiguous() && destination.scalar_type() == source.scalar_type() &&
      destination.sizes().equals(source.sizes()) && !destination.is_conj() &&
      !destination.is_neg()) {
    fetch_into(source, destination);
  } else {
    destination.copy_(fetch(source));
  }
}

Tensor& copy_(Tensor& self, const Tensor& source, bool /*non_blocking*/) {
  check(genie_usable());
  TORCH_CHECK(self.defined() && source.defined(), "copy_ of an undefined tensor");
  if (self.is_same(source) || self.device().is_meta()) {
    return self;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      !source.device().is_meta(), "Cannot copy out of meta tensor; no data!");
  TORCH_CHECK(
      at::is_expandable_to(source.sizes(), self.sizes()),
      "The size of tensor a (",
      self.sizes(),
      ") must match the size of tensor b (",
      source.sizes(),
      ") in copy_");
  if (is_remote(self) && is_remote(source)) {
    if (self.device() == source.device()) {
      record_copy(self, source);
    } else {
      // A call runs on one device.
      record_copy(self, move_to(source, self.device().index()));
    }
  } else if (is_remote(self)) {
    to_remote(self, source.device().is_cpu() ? source : source.cpu());
  } else {
    from_remote(self, source);
  }
  return self;
}

Tensor copy_from(const Tensor& self, const Tensor& destination, bool non_blocking) {
  Tensor result = destination;
  copy_(result, self, non_blocking);
  return result;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& destination) {
  destination.resize_(self.sizes());
  return copy_from(self, destination, false);
}

c10::Scalar local_scalar_dense(const Tensor& self) {
  return fetch(self).item();
}

// True when a copy to the CPU is the bytes of `self` as they are.
bool is_plain_fetch(
    const Tensor& self,
    std::optional<c10::ScalarType> dtype,
    c10::Device device,
    std::optional<bool> pin_memory,
    std::optional<c10::MemoryFormat> memory_format) {
  const auto format = memory_format.value_or(c10::MemoryFormat::Preserve);
  return device.is_cpu() && dtype.value_or(self.scalar_type()) == self.scalar_type() &&
      !pin_memory.value_or(false) && self.is_contiguous() &&
      (format == c10::MemoryFormat::Preserve || format == c10::MemoryFormat::Contiguous);
}

Tensor to_copy(
    const Tensor& self,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory,
    bool non_blocking,
    std::optional<c10::MemoryFormat> memory_format) {
  check(genie_usable());
  const bool stays = !device.has_value() ||
      (device->type() == kRemote && index_or_current(*device) == self.device().index());
  if (!stays && is_plain_fetch(self, dtype, *device, pin_memory, memory_format)) {
    return fetch(self);
  }
  const bool keeps_layout = self.is_contiguous() &&
      memory_format.value_or(c10::MemoryFormat::Preserve) != c10::MemoryFormat::ChannelsLast &&
      memory_format.value_or(c10::MemoryFormat::Preserve) != c10::MemoryFormat::ChannelsLast3d;
  if (!stays && is_remote(self) && device->type() == kRemote && keeps_layout && !pin_memory.value_or(false)) {
    const Tensor moved = move_to(self, index_or_current(*device));
    return dtype.value_or(self.scalar_type()) == self.scalar_type() ? moved : moved.to(*dtype);
  }
  if (!stays) {
    return at::native::_to_copy(
        self, dtype, layout, device, pin_memory, non_blocking, memory_format);
  }
  static const Operator& op = operator_named("aten::_to_copy", "");
  // Without the device: the call runs where its tensor is.
  return record_one(
      op,
      {self,
       dtype,
       layout,
       c10::IValue(),
       c10::IValue(),
       false,
       memory_format});
}

std::vector<Tensor> to_cpu(at::TensorList tensors) {
  std::vector<Tensor> copies;
  copies.reserve(tensors.size());
  for (const Tensor& tensor : tensors) {
    copies.push_back(is_remote(tensor) ? fetch(tensor) : tensor);
  }
  return copies;
}

}  // namespace

Tensor upload(const Tensor& given, c10::Device device) {
  check(genie_usable());
  const Tensor source = with_memory(given);
  const Tensor bytes = source.contiguous().resolve_conj().resolve_neg();
  Tensor tensor = allocate_tensor(
      bytes.scalar_type(), bytes.sizes(), bytes.strides(), index_or_current(device));
  if (bytes.numel() > 0) {
    check(genie_upload(handle_of(tensor), bytes.const_data_ptr(), bytes.nbytes()));
  }
  return tensor;
}

Tensor fetch(const Tensor& source) {
  check(genie_usable());
  Tensor result = empty_result(source.sizes(), source.scalar_type());
  fetch_into(source, result);
  return result;
}

void register_copies(torch::Library& aten) {
  aten.impl("copy_", TORCH_FN(copy_));
  aten.impl("_copy_from", TORCH_FN(copy_from));
  aten.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  aten.impl("_local_scalar_dense", TORCH_FN(local_scalar_dense));
  aten.impl("_to_copy", TORCH_FN(to_copy));
  aten.impl("_to_cpu", TORCH_FN(to_cpu));
}

}  // namespace genie
