// The device guard: which device is current, and one default stream per device.
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <unordered_map>

#include "backend.h"
#include "errors.h"

namespace genie {
namespace {

thread_local c10::DeviceIndex current = 0;

// The autograd engine makes one thread per device at the first backward of the process, CPU ones
// included, and never another. A program may connect after that, so the guard always claims room.
constexpr c10::DeviceIndex kEngineThreads = 8;

c10::Device with_index(c10::Device device) noexcept {
  return c10::Device(kRemote, index_or_current(device));
}

c10::Device checked(c10::Device device) {
  const c10::Device found = with_index(device);
  check_ordinal(found.index());
  return found;
}

// All streams of a device are one order; what tells them apart is what PyTorch asks for: numbers.
std::atomic<c10::StreamId> last_stream{0};
thread_local std::unordered_map<c10::DeviceIndex, c10::StreamId> current_streams;

c10::Stream new_stream(c10::Device device) {
  return c10::Stream(c10::Stream::UNSAFE, device, ++last_stream);
}

c10::Stream current_stream(c10::Device device) noexcept {
  const auto found = current_streams.find(device.index());
  const c10::StreamId id = found == current_streams.end() ? 0 : found->second;
  return c10::Stream(c10::Stream::UNSAFE, device, id);
}

void set_current_stream(c10::Stream stream) noexcept {
  current_streams[stream.device_index()] = stream.id();
}

using Time = std::chrono::steady_clock::time_point;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kRemote;
  }

  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device previous = getDevice();
    setDevice(device);
    return previous;
  }

  c10::Device getDevice() const override {
    return c10::Device(kRemote, current);
  }

  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.type() == kRemote, "expected a ", kDeviceName, " device, got ", device);
    TORCH_CHECK(device.index() >= 0, "expected a ", kDeviceName, " device with an index");
    current = device.index();
  }

  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current = device.index();
  }

  c10::Stream getStream(c10::Device device) const noexcept override {
    return current_stream(with_index(device));
  }

  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, checked(device));
  }

  c10::Stream getStreamFromGlobalPool(c10::Device device, bool /*high_priority*/) const override {
    return new_stream(checked(device));
  }

  c10::Stream getNewStream(c10::Device device, int /*priority*/) const override {
    return new_stream(checked(device));
  }

  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    const c10::Stream previous = current_stream(with_index(stream.device()));
    set_current_stream(stream);
    return previous;
  }

  c10::DeviceIndex deviceCount() const noexcept override {
    const auto connected = static_cast<c10::DeviceIndex>(genie_device_count());
    return std::max(connected, kEngineThreads);
  }

  // The session log is one total order, so within it every event has happened when it is recorded. One
  // that is to tell the time waits until the device has come there.
  void record(
      void** event,
      const c10::Stream& /*stream*/,
      const c10::DeviceIndex /*device_index*/,
      const c10::EventFlag flag) const override {
    if (flag != c10::EventFlag::BACKEND_DEFAULT) {
      return;
    }
    check(genie_barrier());
    if (*event == nullptr) {
      *event = new Time;
    }
    *static_cast<Time*>(*event) = std::chrono::steady_clock::now();
  }
  double elapsedTime(void* from, void* to, const c10::DeviceIndex /*device_index*/) const override {
    TORCH_CHECK(
        from != nullptr && to != nullptr,
        "Both events must be recorded, with enable_timing=True, before calculating elapsed time.");
    const std::chrono::duration<double, std::milli> took =
        *static_cast<Time*>(to) - *static_cast<Time*>(from);
    return took.count();
  }
  void block(void* /*event*/, const c10::Stream& /*stream*/) const override {}
  bool queryEvent(void* /*event*/) const override {
    return true;
  }
  void synchronizeEvent(void* /*event*/) const override {
    check(genie_barrier());
  }
  void destroyEvent(void* event, const c10::DeviceIndex /*device_index*/) const noexcept override {
    delete static_cast<Time*>(event);
  }

  // What was recorded may not have run: only waiting tells, and whoever asks in a loop waits anyway.
  bool queryStream(const c10::Stream& /*stream*/) const override {
    check(genie_barrier());
    return true;
  }
  void synchronizeStream(const c10::Stream& /*stream*/) const override {
    check(genie_barrier());
  }
  void synchronizeDevice(const c10::DeviceIndex device_index) const override {
    checked(c10::Device(kRemote, device_index));
    check(genie_barrier());
  }
  void recordDataPtrOnStream(const c10::DataPtr& /*data*/, const c10::Stream& /*stream*/) const override {}
};

}  // namespace

c10::DeviceIndex current_device() noexcept {
  return current;
}

void set_current_device(c10::DeviceIndex index) noexcept {
  current = index;
}

void check_ordinal(c10::DeviceIndex index) {
  const int32_t count = genie_device_count();
  TORCH_CHECK(
      count == 0 || (index >= 0 && index < count),
      "invalid device ordinal: ", kDeviceName, ":", static_cast<int>(index),
      " does not exist: the session has ", count, " device(s)");
}

void register_guard() {
  // Never destroyed: PyTorch may ask for it while the process ends.
  static const Guard* const guard = new Guard;
  c10::impl::DeviceGuardImplRegistrar(kRemote, guard);
}

}  // namespace genie
