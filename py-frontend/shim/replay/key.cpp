#include "replay/key.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/function.h>

#include <bit>
#include <string_view>

#include "allocator.h"
#include "backend.h"
#include "triggers.h"

namespace genie::replay {
namespace {

const c10::DispatchKeySet kSpecial{
    c10::DispatchKey::Python,
    c10::DispatchKey::Sparse,
    c10::DispatchKey::SparseCsr,
    c10::DispatchKey::Quantized,
    c10::DispatchKey::NestedTensor,
    c10::DispatchKey::Functionalize};
// What makes its elements others than those of its storage.
const c10::DispatchKeySet kSeenOtherwise{
    c10::DispatchKey::Conjugate, c10::DispatchKey::Negative, c10::DispatchKey::ZeroTensor};

// Numbers storages in the order in which they are seen. A table of open addresses: it is made for each call.
class Numbering {
 public:
  explicit Numbering(size_t count) : table_(std::bit_ceil(2 * count + 2)) {}

  uint32_t number(GenieStorage storage, std::vector<GenieStorage>& storages) {
    size_t at = (storage * 0x9E3779B97F4A7C15U) >> 32;
    for (;; ++at) {
      uint32_t& found = table_[at & (table_.size() - 1)];
      if (found == 0) {
        storages.push_back(storage);
        found = static_cast<uint32_t>(storages.size());
      } else if (storages[found - 1] != storage) {
        continue;
      }
      return found - 1;
    }
  }

 private:
  std::vector<uint32_t> table_;
};

}  // namespace

bool is_without_autograd() {
  using c10::DispatchKey;
  if (c10::GradMode::is_enabled()) {
    return false;
  }
  const c10::DispatchKeySet transforms{
      DispatchKey::FuncTorchGradWrapper,
      DispatchKey::FuncTorchVmapMode,
      DispatchKey::FuncTorchBatched,
      DispatchKey::FuncTorchDynamicLayerFrontMode,
      DispatchKey::FuncTorchDynamicLayerBackMode,
      DispatchKey::Functionalize,
      DispatchKey::Python};
  if (c10::impl::tls_local_dispatch_key_set().included_.has_any(transforms)) {
    return false;
  }
  return torch::autograd::ForwardADLevel::try_get_by_idx(0) == nullptr;
}

bool is_special(const at::Tensor& tensor) {
  return tensor.defined() && tensor.key_set().has_any(kSpecial);
}

bool is_plain(const at::Tensor& tensor) {
  if (!is_remote(tensor) || tensor.key_set().has_any(kSpecial | kSeenOtherwise) || !tensor.has_storage()) {
    return false;
  }
  return handle_or_zero(*tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()) != 0;
}

void describe(const at::Tensor& tensor, std::vector<int64_t>& words) {
  if (!tensor.defined()) {
    words.push_back(-1);
    return;
  }
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  const c10::Device device = impl.device();
  words.push_back(static_cast<int64_t>(impl.key_set().raw_repr()));
  words.push_back(
      static_cast<int64_t>(c10::typeMetaToScalarType(impl.dtype())) << 32 |
      static_cast<int64_t>(device.type()) << 16 | static_cast<int64_t>(impl.is_wrapped_number()) << 9 |
      static_cast<int64_t>(impl.requires_grad()) << 8 | static_cast<uint8_t>(device.index()));
  words.push_back(impl.dim());
  const auto sizes = impl.sizes();
  const auto strides = impl.strides();
  words.insert(words.end(), sizes.begin(), sizes.end());
  words.insert(words.end(), strides.begin(), strides.end());
  words.push_back(impl.storage_offset());
  words.push_back(impl.has_storage() ? static_cast<int64_t>(impl.unsafe_storage().nbytes()) : -1);
}

std::optional<Key> Key::of(c10::ArrayRef<at::Tensor> inputs, const std::vector<int64_t>& numbers) {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  if (at::autocast::is_autocast_enabled(kRemote) ||
      at::hasCallbacks() || has_triggers() || torch::autograd::get_current_node() != nullptr ||
      genie_is_pool() != 0) {
    return {};
  }
  Key key;
  key.words.reserve(16 + numbers.size() + 12 * inputs.size());
  key.words.insert(
      key.words.end(),
      {static_cast<int64_t>(local.included_.raw_repr()),
       static_cast<int64_t>(local.excluded_.raw_repr()),
       static_cast<int64_t>(c10::InferenceMode::is_enabled()),
       static_cast<int64_t>(at::globalContext().deterministicAlgorithms()),
       static_cast<int64_t>(c10::get_default_dtype_as_scalartype()),
       static_cast<int64_t>(current_device())});
  key.words.insert(key.words.end(), numbers.begin(), numbers.end());
  Numbering numbering(inputs.size());
  for (const at::Tensor& input : inputs) {
    if (is_special(input)) {
      return {};
    }
    describe(input, key.words);
    uint32_t slot = NO_SLOT;
    if (is_plain(input)) {
      const c10::DeviceIndex device = input.device().index();
      if (key.device >= 0 && device != key.device) {
        return {};
      }
      key.device = device;
      slot = numbering.number(handle_of(input), key.storages);
    }
    key.words.push_back(slot);
  }
  if (key.device < 0) {
    return {};
  }
  return key;
}

uint64_t Key::hash() const {
  return std::hash<std::string_view>()(std::string_view(
      reinterpret_cast<const char*>(words.data()), words.size() * sizeof(words[0])));
}

}  // namespace genie::replay
