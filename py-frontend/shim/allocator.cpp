#include "allocator.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/Allocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "ahead.h"
#include "annotations.h"
#include "errors.h"
#include "replay/taping.h"
#include "usage.h"

namespace genie {
namespace {

// Fake addresses: apart for every storage, never used twice, and far above what a process maps, so
// that a stray dereference faults. PyTorch rebuilds tensors from a bare data pointer when it
// pickles storages, so the address tells the handle: 13 bits of its device's number, 40 bits of id, 512 bytes
// apart. Handles beyond that have an address which tells nothing.
constexpr uint64_t kFirstAddress = uint64_t{1} << 62;
constexpr unsigned kStepBits = 9;
constexpr unsigned kIdBits = 40;
constexpr unsigned kNumberBits = 13;
constexpr uint64_t kOpaqueAddress = uint64_t{1} << 63;

constexpr uint64_t low_bits(uint64_t value, unsigned bits) noexcept {
  return value & ((uint64_t{1} << bits) - 1);
}

void* address_of(GenieStorage handle) noexcept {
  const uint64_t number = handle >> kHandleIdBits;
  const uint64_t id = low_bits(handle, kHandleIdBits);
  if (number >> kNumberBits != 0 || id >> kIdBits != 0) {
    return reinterpret_cast<void*>(kOpaqueAddress);
  }
  return reinterpret_cast<void*>(kFirstAddress | ((number << kIdBits | id) << kStepBits));
}

// The handle that an address tells, or 0.
GenieStorage handle_at(const void* address) noexcept {
  const auto bits = reinterpret_cast<uint64_t>(address);
  if (bits >> 62 != 1 || low_bits(bits, kStepBits) != 0) {
    return 0;
  }
  const uint64_t index = (bits ^ kFirstAddress) >> kStepBits;
  return (index >> kIdBits) << kHandleIdBits | low_bits(index, kIdBits);
}

// What a data pointer has beside its address.
struct Held {
  GenieStorage handle;
  uint64_t bytes;
  c10::DeviceIndex device;
};

void free_context(void* context) {
  const auto* const held = static_cast<Held*>(context);
  // Before: nobody asks for what is freed.
  note_freed(held->handle);
  if (replay::is_noticing()) {
    replay::notice_freed(held->handle);
  }
  genie_free(held->handle);
  count_freed(held->handle, held->device, held->bytes);
  delete held;
}

c10::DataPtr data_pointer(GenieStorage handle, uint64_t bytes, c10::DeviceIndex device) {
  auto* const held = new Held{handle, bytes, device};
  count_made(handle, device, bytes);
  note_made(handle, bytes);
  if (replay::is_noticing()) {
    replay::notice_made(bytes);
  }
  return c10::DataPtr(
      address_of(handle), held, &free_context, c10::Device(kRemote, device));
}

struct RemoteAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t nbytes) override {
    const c10::DeviceIndex device = current_device();
    GenieStorage handle = 0;
    check(genie_alloc(device, nbytes, &handle));
    return data_pointer(handle, nbytes, device);
  }

  bool initialized() override {
    return genie_device_count() > 0;
  }
  // The node owns the memory, and there is one stream.
  void emptyCache(c10::MempoolId_t /*pool*/) override {}
  void recordStream(const c10::DataPtr& /*data*/, c10::Stream /*stream*/) override {}

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    return usage_of(device);
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override {
    reset_accumulated_usage(device);
  }
  void resetPeakStats(c10::DeviceIndex device) override {
    reset_peak_usage(device);
  }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    const size_t total = genie_device_limit(device);
    return {total - std::min<size_t>(used_bytes(device), total), total};
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
  return data.get_deleter() == &free_context ? static_cast<const Held*>(data.get_context())->handle
                                             : 0;
}

GenieStorage handle_of(const at::TensorBase& tensor) {
  TORCH_CHECK(
      tensor.device().type() == kRemote && tensor.has_storage(),
      "expected a dense tensor on ",
      kDeviceName,
      ", got one on ",
      tensor.device());
  c10::StorageImpl& storage = *tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  const GenieStorage handle = handle_or_zero(storage);
  if (handle != 0) {
    return handle;
  }
  const GenieStorage told = handle_at(storage._mutable_data_ptr_no_checks().get());
  TORCH_CHECK(told != 0, "this tensor's storage was not made by ", kDeviceName);
  return told;
}

void resize_storage(c10::StorageImpl& storage, uint64_t nbytes) {
  const GenieStorage handle = handle_or_zero(storage);
  TORCH_CHECK(handle != 0, "cannot resize a storage that ", kDeviceName, " did not make");
  TORCH_CHECK(storage.resizable(), "Trying to resize storage that is not resizable");
  note_freed(handle);
  check(genie_resize(handle, nbytes));
  auto* const held = static_cast<Held*>(storage._mutable_data_ptr_no_checks().get_context());
  count_resized(held->device, held->bytes, nbytes);
  held->bytes = nbytes;
  note_made(handle, nbytes);
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
  note_annotation(tensor);
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
