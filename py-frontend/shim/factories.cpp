// Tensors of uninitialised bytes.
#include <ATen/EmptyTensor.h>
#include <ATen/native/TensorFactories.h>
#include <c10/core/DefaultDtype.h>
#include <c10/util/Exception.h>
#include <c10/util/strides.h>

#include "allocator.h"
#include "backend.h"
#include "kernels.h"

namespace genie {
namespace {

using at::Tensor;

c10::DeviceIndex checked_device(
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      layout.value_or(c10::kStrided) == c10::kStrided,
      kDeviceName,
      " has dense tensors only, not ",
      *layout);
  TORCH_CHECK(!pin_memory.value_or(false), "Only dense CPU tensors can be pinned");
  return device.has_value() ? index_or_current(*device) : current_device();
}

void check_sizes(c10::IntArrayRef sizes) {
  for (const int64_t size : sizes) {
    TORCH_CHECK(size >= 0, "Trying to create tensor with negative dimension ", size, ": ", sizes);
  }
}

Tensor empty(
    c10::IntArrayRef sizes,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory,
    std::optional<c10::MemoryFormat> memory_format) {
  const c10::DeviceIndex index = checked_device(layout, device, pin_memory);
  check_sizes(sizes);
  Tensor tensor = allocate_tensor(
      c10::dtype_or_default(dtype), sizes, c10::contiguous_strides(sizes), index);
  if (memory_format.value_or(c10::MemoryFormat::Contiguous) != c10::MemoryFormat::Contiguous) {
    tensor.unsafeGetTensorImpl()->empty_tensor_restride(*memory_format);
  }
  return tensor;
}

Tensor empty_strided(
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory) {
  const c10::DeviceIndex index = checked_device(layout, device, pin_memory);
  check_sizes(sizes);
  TORCH_CHECK(
      sizes.size() == strides.size(),
      "mismatch in length of strides and shape: ",
      strides,
      " and ",
      sizes);
  return allocate_tensor(c10::dtype_or_default(dtype), sizes, strides, index);
}

// Zeros without memory, of which autograd makes gradients that nobody gave.
Tensor zeros_without_memory(
    c10::IntArrayRef sizes,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout> layout,
    std::optional<c10::Device> device,
    std::optional<bool> pin_memory) {
  const c10::Device on(kRemote, checked_device(layout, device, pin_memory));
  check_sizes(sizes);
  at::native::ZeroTensorAllocator allocator(on);
  const c10::DispatchKeySet keys{c10::DispatchKey::PrivateUse1, c10::DispatchKey::ZeroTensor};
  return at::detail::empty_generic(
      sizes, &allocator, keys, c10::dtype_or_default(dtype), std::nullopt);
}

}  // namespace

void register_factories(torch::Library& aten) {
  aten.impl("empty.memory_format", TORCH_FN(empty));
  aten.impl("empty_strided", TORCH_FN(empty_strided));
  aten.impl("_efficientzerotensor", TORCH_FN(zeros_without_memory));
}

}  // namespace genie
