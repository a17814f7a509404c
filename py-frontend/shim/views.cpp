// Views and other changes of metadata: PyTorch's own kernels, which cost no message.
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/_conj_native.h>
#include <ATen/ops/_neg_view_native.h>
#include <ATen/ops/alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/detach_native.h>
#include <ATen/ops/is_set_to_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/native/Resize.h>
#include <c10/core/Allocator.h>
#include <c10/util/Exception.h>

#include <utility>

#include "allocator.h"
#include "annotations.h"
#include "backend.h"
#include "kernels.h"
#include "parts.h"

namespace genie {
namespace {

using at::Tensor;

// Makes the storage big enough for a tensor of this shape that starts at its offset.
void grow_storage(
    c10::TensorImpl& impl,
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides) {
  const size_t needed = at::detail::computeStorageNbytes(
      sizes, strides, impl.dtype().itemsize(), static_cast<size_t>(impl.storage_offset()));
  c10::StorageImpl& storage = *impl.unsafe_storage().unsafeGetStorageImpl();
  if (needed > storage.nbytes()) {
    resize_storage(storage, needed);
  }
}

const Tensor& resize_(
    const Tensor& self,
    c10::IntArrayRef sizes,
    std::optional<c10::MemoryFormat> memory_format) {
  c10::TensorImpl& impl = *self.unsafeGetTensorImpl();
  if (!self.sizes().equals(sizes)) {
    for (const int64_t size : sizes) {
      TORCH_CHECK(size >= 0, "Trying to create tensor with negative dimension ", size, ": ", sizes);
    }
    grow_storage(impl, sizes, c10::contiguous_strides(sizes));
    impl.set_sizes_contiguous(sizes);
  }
  if (memory_format.has_value()) {
    TORCH_CHECK(
        *memory_format != c10::MemoryFormat::Preserve,
        "Unsupported memory format",
        *memory_format);
    impl.empty_tensor_restride(*memory_format);
  }
  return self;
}

Tensor& set_storage(
    Tensor& self,
    c10::Storage storage,
    int64_t offset,
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides) {
  at::native::checkSetStorage(self, std::move(storage), offset, sizes, strides);
  c10::TensorImpl& impl = *self.unsafeGetTensorImpl();
  impl.set_storage_offset(offset);
  if (strides.data() == nullptr) {
    const auto contiguous = c10::contiguous_strides(sizes);
    grow_storage(impl, sizes, contiguous);
    impl.set_sizes_contiguous(sizes);
  } else {
    grow_storage(impl, sizes, strides);
    impl.set_sizes_and_strides(sizes, strides);
  }
  return self;
}

Tensor& set_empty(Tensor& self) {
  c10::Allocator* const allocator = c10::GetAllocator(kRemote);
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), 0, allocator->allocate(0), allocator, /*resizable=*/true);
  return set_storage(self, std::move(storage), 0, {0}, {});
}

// For `.data =` and `module.to()`: a CPU parameter may become a remote one in place, so tied
// weights stay tied.
bool has_compatible_shallow_copy_type(const Tensor& self, const Tensor& from) {
  const auto is_dense = [](const Tensor& tensor) {
    return is_plain(tensor) &&
        (tensor.device().type() == kRemote || tensor.device().is_cpu() ||
         tensor.device().is_cuda());
  };
  return is_dense(self) && is_dense(from);
}

// A kernel of PyTorch's that makes a view, as a kernel of ours.
template <auto kernel>
struct View;

template <typename... A, Tensor (*kernel)(A...)>
struct View<kernel> {
  static Tensor make(A... arguments) {
    Tensor made = kernel(std::forward<A>(arguments)...);
    note_annotation(made);
    return made;
  }
};

// There is one stream, and the session log keeps its order.
void record_stream(Tensor& /*self*/, c10::Stream /*stream*/) {}

}  // namespace

void register_views(torch::Library& aten) {
  aten.impl("view", TORCH_FN(View<&at::native::view>::make));
  aten.impl("as_strided", TORCH_FN(View<&at::native::as_strided_tensorimpl>::make));
  aten.impl("_reshape_alias", TORCH_FN(View<&at::native::_reshape_alias>::make));
  aten.impl("unfold", TORCH_FN(View<&at::native::unfold>::make));
  aten.impl("view_as_real", TORCH_FN(View<&at::native::view_as_real>::make));
  aten.impl("view_as_complex", TORCH_FN(View<&at::native::view_as_complex>::make));
  // Without ours these would be PyTorch's kernels all the same, but nobody would be told.
  aten.impl("alias", TORCH_FN(View<&at::native::alias>::make));
  aten.impl("detach", TORCH_FN(View<&at::native::detach>::make));
  aten.impl("view.dtype", TORCH_FN(View<&at::native::view_dtype>::make));
  aten.impl("_conj", TORCH_FN(View<&at::native::_conj>::make));
  aten.impl("_neg_view", TORCH_FN(View<&at::native::_neg_view>::make));
  aten.impl("is_set_to", TORCH_FN(at::native::is_set_to));
  aten.impl("resize_", TORCH_FN(resize_));
  aten.impl("set_", TORCH_FN(set_empty));
  aten.impl(
      "set_.source_Storage",
      TORCH_FN((static_cast<Tensor& (*)(Tensor&, c10::Storage)>(&at::native::set_))));
  aten.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  aten.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  aten.impl("_has_compatible_shallow_copy_type", TORCH_FN(has_compatible_shallow_copy_type));
  aten.impl("record_stream", TORCH_FN(record_stream));
}

}  // namespace genie
