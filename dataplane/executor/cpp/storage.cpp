#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <torch/library.h>
#include <torch/version.h>

#include <cstring>

#include "dispatch.h"
#include "error.h"
#include "kernels.h"
#include "threads.h"
#include "view.h"

namespace genie {
namespace {

c10::Device the_device = c10::kCPU;

// All CPU memory of the session, temporaries of kernels included, within its budget.
class BudgetAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) {
      return {nullptr, nullptr, &genie_memory_free, c10::kCPU};
    }
    void* data = genie_memory_allocate(bytes);
    if (!data) {
      uint64_t used = 0;
      uint64_t limit = 0;
      genie_memory_state(&used, &limit);
      TORCH_CHECK_WITH(
          OutOfMemoryError,
          false,
          "out of memory: tried to allocate ",
          bytes,
          " bytes, but the session uses ",
          used,
          " of the ",
          limit,
          " bytes it may use");
    }
    return {data, data, &genie_memory_free, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &genie_memory_free;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

struct Place {
  uint64_t place;
  uint64_t bytes;
};

void release_place(void* context) {
  const std::unique_ptr<Place> place(static_cast<Place*>(context));
  genie_place_release(place->place, place->bytes);
}

c10::Allocator* device_allocator() {
  return the_device.is_cpu() ? c10::GetCPUAllocator() : c10::GetAllocator(the_device.type());
}

c10::intrusive_ptr<c10::StorageImpl> new_storage(uint64_t bytes) {
  return c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, device_allocator(), /*resizable=*/true);
}

GenieStorage* give(c10::intrusive_ptr<c10::StorageImpl> storage) {
  return reinterpret_cast<GenieStorage*>(storage.release());
}

// A tensor over memory of `device`, which is told instead of looked up.
at::Tensor blob(void* data, at::IntArrayRef sizes, at::ScalarType dtype, c10::Device device) {
  return at::for_blob(data, sizes)
      .options(at::TensorOptions().dtype(dtype).device(device))
      .target_device(device)
      .make_tensor();
}

at::Tensor bytes_tensor(void* data, uint64_t bytes, c10::Device device) {
  return blob(data, {static_cast<int64_t>(bytes)}, at::kByte, device);
}

// Copies between the machine's memory and the device's, or within the machine's.
void copy_bytes(void* to, c10::Device to_device, void* from, c10::Device from_device, uint64_t n) {
  if (n == 0) {
    return;
  }
  if (to_device.is_cpu() && from_device.is_cpu()) {
    std::memcpy(to, from, n);
  } else {
    bytes_tensor(to, n, to_device).copy_(bytes_tensor(from, n, from_device));
  }
}

void start_cuda(int index) {
  TORCH_CHECK(
      dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL), "CUDA is not to be had: ", dlerror());
  at::globalContext().lazyInitDevice(c10::kCUDA);
  the_device = c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
  c10::impl::VirtualGuardImpl(c10::kCUDA).setDevice(the_device);
}

} // namespace

c10::Device device() {
  return the_device;
}

c10::ScalarType checked_dtype(uint8_t dtype) {
  if (dtype >= 64 || ((DTYPE_MASK >> dtype) & 1) == 0) {
    throw ProtocolError("a dtype that Genie does not carry");
  }
  return static_cast<c10::ScalarType>(dtype);
}

at::Tensor make_view(const GenieView& view) {
  const auto dtype = checked_dtype(view.dtype);
  uint64_t last = static_cast<uint64_t>(view.offset);
  bool valid = view.offset >= 0;
  bool empty = false;
  for (size_t i = 0; i < view.ndim; i++) {
    const int64_t size = view.sizes[i];
    const int64_t stride = view.strides[i];
    uint64_t step = 0;
    valid &= size >= 0 && stride >= 0;
    empty |= size == 0;
    valid &= !__builtin_mul_overflow(
        static_cast<uint64_t>(size - (size > 0)), static_cast<uint64_t>(stride), &step);
    valid &= empty || !__builtin_add_overflow(last, step, &last);
  }
  const auto meta = c10::scalarTypeToTypeMeta(dtype);
  uint64_t bytes = 0;
  valid &= !__builtin_mul_overflow(last, meta.itemsize(), &bytes);
  valid &= !__builtin_add_overflow(bytes, meta.itemsize(), &bytes);
  auto* storage = impl(view.storage);
  if (!valid || (!empty && bytes > storage->nbytes())) {
    throw ProtocolError("a tensor reaches past the bytes of its storage");
  }
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(storage)),
      c10::DispatchKeySet(
          the_device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA),
      meta);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      at::IntArrayRef(view.sizes, view.ndim),
      at::IntArrayRef(view.strides, view.ndim),
      view.offset);
  if (view.flags & flag::NEGATIVE) {
    tensor._set_neg(true);
  }
  if (view.flags & flag::CONJUGATE) {
    TORCH_CHECK(tensor.is_complex(), "the conjugate bit is set on a tensor that is not complex");
    tensor._set_conj(true);
  }
  return tensor;
}

GenieStorage* take_storage(const at::Tensor& tensor) {
  return give(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(
      tensor.storage().unsafeGetStorageImpl()));
}

} // namespace genie

namespace {

class SilentWarnings final : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override {}
};

} // namespace

extern "C" {

const char* genie_torch_version(void) {
  return TORCH_VERSION;
}

int genie_start(int cuda_index, uint32_t threads) {
  return genie::guarded([&] {
    static genie::BudgetAllocator allocator;
    c10::SetCPUAllocator(&allocator, /*priority=*/255);
    static torch::Library aten(
        torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
    static const bool registered = [] {
      // Ours stand in the place of some of libtorch's, of which it would warn.
      SilentWarnings silent;
      const c10::WarningUtils::WarningHandlerGuard guard(&silent);
      genie::register_attention(aten);
      genie::register_eigenvalues(aten);
      genie::register_histogram(aten);
      genie::register_recurrent(aten);
      return true;
    }();
    (void)registered;
    genie::start_threads(threads);
    if (cuda_index >= 0) {
      genie::start_cuda(cuda_index);
    }
    // For the thread's whole life.
    static thread_local const c10::InferenceMode inference_mode;
  });
}

int genie_synchronize(void) {
  return genie::guarded([] {
    if (!genie::the_device.is_cpu()) {
      c10::impl::VirtualGuardImpl(genie::the_device.type())
          .synchronizeDevice(genie::the_device.index());
    }
  });
}

int genie_storage_new(uint64_t bytes, GenieStorage** storage) {
  return genie::guarded([&] { *storage = genie::give(genie::new_storage(bytes)); });
}

int genie_storage_copy(const void* source, uint64_t bytes, GenieStorage** storage) {
  return genie::guarded([&] {
    auto made = genie::new_storage(bytes);
    genie::copy_bytes(
        made->mutable_data(), genie::the_device, const_cast<void*>(source), c10::kCPU, bytes);
    *storage = genie::give(std::move(made));
  });
}

int genie_storage_clone(GenieStorage* storage, GenieStorage** copy) {
  return genie::guarded([&] {
    auto* from = reinterpret_cast<c10::StorageImpl*>(storage);
    auto made = genie::new_storage(from->nbytes());
    genie::copy_bytes(
        made->mutable_data(), genie::the_device, from->mutable_data(), genie::the_device, from->nbytes());
    *copy = genie::give(std::move(made));
  });
}

int genie_storage_place(void* data, uint64_t bytes, uint64_t place, GenieStorage** storage) {
  return genie::guarded([&] {
    auto* context = new genie::Place{place, bytes};
    c10::DataPtr owned(data, context, &genie::release_place, genie::the_device);
    *storage = genie::give(c10::make_intrusive<c10::StorageImpl>(
        c10::StorageImpl::use_byte_size_t(),
        bytes,
        std::move(owned),
        genie::device_allocator(),
        /*resizable=*/true));
  });
}

int genie_storage_resize(GenieStorage* storage, uint64_t bytes) {
  return genie::guarded([&] {
    auto* old = genie::impl(storage);
    auto made = genie::new_storage(bytes);
    genie::copy_bytes(
        made->mutable_data(),
        genie::the_device,
        old->mutable_data(),
        genie::the_device,
        std::min<uint64_t>(bytes, old->nbytes()));
    old->set_data_ptr_noswap(std::move(made->_mutable_data_ptr_no_checks()));
    old->set_nbytes(bytes);
  });
}

uint64_t genie_storage_bytes(const GenieStorage* storage) {
  return genie::impl(storage)->nbytes();
}

const void* genie_storage_data(const GenieStorage* storage) {
  const auto* held = genie::impl(storage);
  return held->device().is_cpu() ? held->data() : nullptr;
}

GenieStorage* genie_storage_share(GenieStorage* storage) {
  return genie::give(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(genie::impl(storage)));
}

void genie_storage_free(GenieStorage* storage) {
  auto owned = c10::intrusive_ptr<c10::StorageImpl>::reclaim(genie::impl(storage));
}

int genie_fetch(const GenieView* view, void* target, uint64_t target_bytes) {
  return genie::guarded([&] {
    const at::Tensor from = genie::make_view(*view);
    if (from.nbytes() != target_bytes) {
      throw genie::ProtocolError("a fetch of other bytes than its view has");
    }
    if (target_bytes > 0) {
      genie::blob(target, from.sizes(), from.scalar_type(), genie::the_device).copy_(from);
    }
  });
}

} // extern "C"
