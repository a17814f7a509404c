#include "host_memory.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <memory>

#include "recorder.h"

namespace genie {
namespace {

struct HostBlock {
  void* memory;
  uint64_t capacity;
};

void give_back(void* context) {
  const std::unique_ptr<HostBlock> block(static_cast<HostBlock*>(context));
  genie_host_give(block->memory, block->capacity);
}

}  // namespace

at::Tensor empty_result(at::IntArrayRef sizes, c10::ScalarType dtype) {
  const auto meta = c10::scalarTypeToTypeMeta(dtype);
  const size_t bytes = at::detail::computeStorageNbytesContiguous(sizes, meta.itemsize());
  uint64_t capacity = 0;
  void* memory = bytes < GENIE_HOST_MIN ? nullptr : genie_host_take(bytes, &capacity);
  if (memory == nullptr) {
    return at::detail::empty_cpu(sizes, dtype);
  }
  // Resizable, with the usual allocator for what comes after a resize.
  c10::DataPtr data(memory, new HostBlock{memory, capacity}, &give_back, c10::kCPU);
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, std::move(data), c10::GetCPUAllocator(), true);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(storage)), c10::DispatchKeySet(c10::DispatchKey::CPU), meta);
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return tensor;
}

}  // namespace genie
