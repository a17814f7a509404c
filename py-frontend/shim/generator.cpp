#include "generator.h"

#include <ATen/Utils.h>
#include <ATen/core/GeneratorForPrivateuseone.h>
#include <ATen/ops/empty.h>
#include <c10/core/GeneratorImpl.h>
#include <c10/util/Exception.h>

#include <array>
#include <cstring>
#include <deque>
#include <mutex>

#include "errors.h"

namespace genie {
namespace {

// A counter run through splitmix64's mixing function: each draw is a seed for one operator, and
// the state is two numbers.
struct RemoteGenerator final : c10::GeneratorImpl {
  explicit RemoteGenerator(c10::DeviceIndex device)
      : GeneratorImpl(
            c10::Device(kRemote, device),
            c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}

  static c10::DeviceType device_type() {
    return kRemote;
  }

  void set_current_seed(uint64_t seed) override {
    seed_ = seed;
    drawn_ = 0;
  }
  uint64_t current_seed() const override {
    return seed_;
  }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom());
    return seed_;
  }
  void set_offset(uint64_t offset) override {
    drawn_ = offset;
  }
  uint64_t get_offset() const override {
    return drawn_;
  }

  void set_state(const c10::TensorImpl& state) override {
    at::detail::check_rng_state(state);
    std::array<uint64_t, 2> numbers{};
    TORCH_CHECK(
        state.numel() == sizeof numbers,
        "a ",
        kDeviceName,
        " generator's state has ",
        sizeof numbers,
        " bytes, not ",
        state.numel());
    std::memcpy(numbers.data(), state.data(), sizeof numbers);
    seed_ = numbers[0];
    drawn_ = numbers[1];
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    const std::array<uint64_t, 2> numbers{seed_, drawn_};
    at::Tensor state =
        at::empty({static_cast<int64_t>(sizeof numbers)}, at::TensorOptions().dtype(at::kByte).device(at::kCPU));
    std::memcpy(state.mutable_data_ptr(), numbers.data(), sizeof numbers);
    return state.getIntrusivePtr();
  }

  uint64_t next() {
    const std::lock_guard<std::mutex> lock(mutex_);
    uint64_t z = seed_ + 0x9e3779b97f4a7c15U * ++drawn_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

 private:
  RemoteGenerator* clone_impl() const override {
    auto* const copy = new RemoteGenerator(device_.index());
    copy->seed_ = seed_;
    copy->drawn_ = drawn_;
    return copy;
  }

  uint64_t seed_ = c10::default_rng_seed_val;
  uint64_t drawn_ = 0;
};

}  // namespace

const at::Generator& default_generator(c10::DeviceIndex device) {
  check(genie_usable());
  static std::mutex mutex;
  // Leaked, as references to its elements outlive everything; a deque never moves them.
  static auto* const generators = new std::deque<at::Generator>;
  const size_t index = device < 0 ? current_device() : device;
  const std::lock_guard<std::mutex> lock(mutex);
  while (generators->size() <= index) {
    const auto next = static_cast<c10::DeviceIndex>(generators->size());
    generators->push_back(at::make_generator<RemoteGenerator>(next));
  }
  return (*generators)[index];
}

at::Generator new_generator(c10::DeviceIndex device) {
  const c10::DeviceIndex index = device < 0 ? current_device() : device;
  check_ordinal(index);
  return at::make_generator<RemoteGenerator>(index);
}

int64_t draw(const at::Generator& generator) {
  TORCH_CHECK(
      generator.device().type() == kRemote,
      "Expected a '",
      kDeviceName,
      "' device type for generator but found '",
      generator.device().type(),
      "'");
  return static_cast<int64_t>(
      static_cast<RemoteGenerator*>(generator.unsafeGetGeneratorImpl())->next());
}

}  // namespace genie
