#include "parts.h"

#include <ATen/NestedTensorImpl.h>
#include <ATen/SparseCsrTensorImpl.h>
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/SparseTensorImpl.h>
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>
#include <ATen/ops/_nested_view_from_buffer.h>
#include <ATen/ops/_sparse_compressed_tensor_unsafe.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <c10/util/Exception.h>

#include "allocator.h"
#include "annotations.h"
#include "backend.h"

namespace genie {
namespace {

at::SparseCsrTensorImpl* compressed_impl(const at::Tensor& tensor) {
  TORCH_INTERNAL_ASSERT(at::sparse_csr::is_sparse_compressed(tensor), "a tensor without parts");
  return static_cast<at::SparseCsrTensorImpl*>(tensor.unsafeGetTensorImpl());
}

// With the numbers of `numbers`, and their meaning from `like`.
at::Tensor quantized(const at::Tensor& numbers, const at::Tensor& like, c10::Device device) {
  const auto key = device.type() == kRemote ? c10::DispatchKey::QuantizedPrivateUse1
                                            : c10::DispatchKey::QuantizedCPU;
  at::Tensor tensor = at::detail::make_tensor<at::QTensorImpl>(
      c10::Storage(numbers.storage()),
      c10::DispatchKeySet(key),
      like.dtype(),
      at::get_qtensorimpl(like)->quantizer());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(numbers.sizes(), numbers.strides());
  note_annotation(tensor);
  return tensor;
}

// The numbers of a quantised tensor of the device.
at::Tensor numbers_of(const at::Tensor& tensor) {
  return make_tensor(
      tensor.storage(),
      c10::toUnderlying(tensor.scalar_type()),
      tensor.sizes(),
      tensor.strides());
}

}  // namespace

bool has_parts(const at::Tensor& tensor) {
  return tensor.layout() == c10::kStrided || tensor.layout() == c10::kSparse ||
      at::sparse_csr::is_sparse_compressed(tensor);
}

bool is_plain(const at::Tensor& tensor) {
  return tensor.layout() == c10::kStrided && !tensor.is_nested() && !tensor.is_quantized();
}

at::Tensor elements_of(const at::Tensor& tensor) {
  if (tensor.is_nested()) {
    return at::native::get_nested_tensor_impl(tensor)->get_unsafe_storage_as_tensor();
  }
  if (tensor.layout() == c10::kSparse) {
    return static_cast<at::SparseTensorImpl*>(tensor.unsafeGetTensorImpl())->values();
  }
  return at::sparse_csr::is_sparse_compressed(tensor) ? compressed_impl(tensor)->values() : tensor;
}

at::Tensor to_device(const at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined() || tensor.device() == device) {
    return tensor;
  }
  if (tensor.is_nested()) {
    const auto* const impl = at::native::get_nested_tensor_impl(tensor);
    return at::_nested_view_from_buffer(
        impl->get_unsafe_storage_as_tensor().to(device),
        impl->get_nested_sizes(),
        impl->get_nested_strides(),
        impl->get_storage_offsets());
  }
  if (tensor.is_quantized()) {
    const bool is_there = tensor.device().type() == kRemote;
    const at::Tensor numbers = is_there ? numbers_of(tensor) : tensor.int_repr();
    return quantized(numbers.to(device).contiguous(), tensor, device);
  }
  switch (tensor.layout()) {
    case c10::kStrided:
      return tensor.to(device);
    case c10::kSparse:
      return at::_sparse_coo_tensor_unsafe(
          tensor._indices().to(device),
          tensor._values().to(device),
          tensor.sizes(),
          tensor.options().device(device),
          tensor.is_coalesced());
    default: {
      const auto* const impl = compressed_impl(tensor);
      return at::_sparse_compressed_tensor_unsafe(
          impl->compressed_indices().to(device),
          impl->plain_indices().to(device),
          impl->values().to(device),
          tensor.sizes(),
          tensor.options().device(device));
    }
  }
}

void set_parts(
    const at::Tensor& sparse,
    const at::Tensor& like,
    const at::Tensor& indices,
    const at::Tensor& values,
    bool is_coalesced) {
  auto* const impl = static_cast<at::SparseTensorImpl*>(sparse.unsafeGetTensorImpl());
  impl->raw_resize_(like.sparse_dim(), like.dense_dim(), like.sizes());
  impl->set_indices_and_values_unsafe(indices, values);
  impl->set_coalesced(is_coalesced);
}

void put_into(const at::Tensor& tensor, const at::Tensor& local) {
  const c10::Device device = tensor.device();
  if (tensor.is_nested()) {
    at::native::get_nested_tensor_impl(tensor)->get_unsafe_storage_as_tensor().copy_(
        at::native::get_nested_tensor_impl(local)->get_unsafe_storage_as_tensor());
    return;
  }
  if (tensor.is_quantized()) {
    numbers_of(tensor).copy_(local.int_repr());
    return;
  }
  switch (tensor.layout()) {
    case c10::kStrided:
      tensor.resize_(local.sizes());
      tensor.copy_(local);
      return;
    case c10::kSparse:
      set_parts(
          tensor,
          local,
          local._indices().to(device),
          local._values().to(device),
          local.is_coalesced());
      return;
    default: {
      const auto* const from = compressed_impl(local);
      compressed_impl(tensor)->set_member_tensors(
          from->compressed_indices().to(device),
          from->plain_indices().to(device),
          from->values().to(device),
          local.sizes());
    }
  }
}

}  // namespace genie
