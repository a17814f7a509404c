#include "allocator.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/Allocator.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <utility>

#include "errors.h"

namespace genie {
namespace {

// Fake addresses: apart for every storage, never used twice, and far above what a process maps, so
// that PyTorch's own comparisons of data pointers hold and a stray dereference faults.
constexpr uint64_t kFirstAddress = uint64_t{1} << 62;
constexpr uint64_t kAddressStep = 512;
std::atomic<uint64_t> next_address{kFirstAddress};

void* fake_address(uint64_t nbytes) noexcept {
  const uint64_t steps = nbytes / kAddressStep + 1;
  return reinterpret_cast<void*>(
      next_address.fetch_add(steps * kAddressStep, std::memory_order_relaxed));
}

// The data pointer's context is the handle itself: no allocation beside the storage's own.
void free_context(void* context) {
  genie_free(reinterpret_cast<GenieStorage>(context));
}

c10::DataPtr data_pointer(GenieStorage handle, uint64_t nbytes, c10::DeviceIndex device) {
  return c10::DataPtr(
      fake_address(nbytes),
      reinterpret_cast<void*>(handle),
      &free_context,
      c10::Device(kRemote, device));
}

struct RemoteAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    const c10::DeviceIndex device = current_device();
    GenieStorage handle = 0;
    check(genie_alloc(device, nbytes, &handle));
    return data_pointer(handle, nbytes, device);
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;  // a raw pointer could not carry the handle
  }

  void copy_data(void* /*destination*/, const void* /*source*/, size_t /*nbytes*/) const override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, kDeviceName, ": raw copies of storages are not supported");
  }
};

RemoteAllocator allocator;

}  // namespace

void register_allocator() {
  c10::SetAllocator(kRemote, &allocator);
}

c10::Storage adopt_storage(GenieStorage handle, uint64_t nbytes, c10::DeviceIndex device) {
  return c10::Storage(
      c10::Storage::use_byte_size_t(),
      static_cast<size_t>(nbytes),
      data_pointer(handle, nbytes, device),
      &allocator,
      /*resizable=*/true);
}

GenieStorage handle_or_zero(c10::StorageImpl& storage) noexcept {
  const c10::DataPtr& data = storage._mutable_data_ptr_no_checks();
  return data.get_deleter() == &free_context ? reinterpret_cast<GenieStorage>(data.get_context())
                                             : 0;
}

GenieStorage handle_of(const at::TensorBase& tensor) {
  TORCH_CHECK(
      tensor.device().type() == kRemote && tensor.has_storage(),
      "expected a dense tensor on ",
      kDeviceName,
      ", got one on ",
      tensor.device());
  const GenieStorage handle =
      handle_or_zero(*tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl());
  TORCH_CHECK(
      handle != 0,
      "this tensor's storage was not made by ",
      kDeviceName,
      " (was it rebuilt from a pointer?)");
  return handle;
}

void resize_storage(c10::StorageImpl& storage, uint64_t nbytes) {
  const GenieStorage handle = handle_or_zero(storage);
  TORCH_CHECK(handle != 0, "cannot resize a storage that ", kDeviceName, " did not make");
  TORCH_CHECK(storage.resizable(), "Trying to resize storage that is not resizable");
  check(genie_resize(handle, nbytes));
  // A grown storage would reach into its neighbour's addresses: the same handle, a new address.
  c10::DataPtr& old = storage._mutable_data_ptr_no_checks();
  const c10::DeviceIndex device = old.device().index();
  void* const context = old.release_context();
  storage.set_data_ptr_noswap(
      data_pointer(reinterpret_cast<GenieStorage>(context), nbytes, device));
  storage.set_nbytes(static_cast<size_t>(nbytes));
}

at::Tensor make_tensor(
    c10::Storage storage,
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides) {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage),
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::scalarTypeToTypeMeta(dtype));
  c10::TensorImpl* const impl = tensor.unsafeGetTensorImpl();
  if (sizes.size() != 1 || sizes[0] != 0) {  // a new TensorImpl has the shape [0]
    impl->set_sizes_and_strides(sizes, strides);
  }
  return tensor;
}

at::Tensor allocate_tensor(
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides,
    c10::DeviceIndex device) {
  const size_t nbytes =
      at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype));
  GenieStorage handle = 0;
  check(genie_alloc(device, nbytes, &handle));
  return make_tensor(adopt_storage(handle, nbytes, device), dtype, sizes, strides);
}

}  // namespace genie
