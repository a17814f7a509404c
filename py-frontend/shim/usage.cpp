#include "usage.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "allocator.h"

namespace genie {
namespace {

struct Count {
  std::atomic<int64_t> current{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> added{0};
  std::atomic<int64_t> taken{0};

  void add(int64_t amount) noexcept {
    added.fetch_add(amount, std::memory_order_relaxed);
    reach(current.fetch_add(amount, std::memory_order_relaxed) + amount);
  }
  void reach(int64_t now) noexcept {
    int64_t known = peak.load(std::memory_order_relaxed);
    while (now > known && !peak.compare_exchange_weak(known, now, std::memory_order_relaxed)) {
    }
  }
  void pass(int64_t amount, int64_t most) noexcept {
    added.fetch_add(amount, std::memory_order_relaxed);
    taken.fetch_add(amount, std::memory_order_relaxed);
    reach(current.load(std::memory_order_relaxed) + most);
  }
  void take(int64_t amount) noexcept {
    taken.fetch_add(amount, std::memory_order_relaxed);
    current.fetch_sub(amount, std::memory_order_relaxed);
  }
  c10::CachingAllocator::Stat stat() const noexcept {
    c10::CachingAllocator::Stat stat;
    stat.current = current.load(std::memory_order_relaxed);
    stat.peak = peak.load(std::memory_order_relaxed);
    stat.allocated = added.load(std::memory_order_relaxed);
    stat.freed = taken.load(std::memory_order_relaxed);
    return stat;
  }
};

struct Usage {
  Count bytes;
  Count storages;
};

// Numbers of devices from here on are those of the session in use: others' storages are gone.
std::atomic<uint64_t> first_number{0};

bool is_gone(GenieStorage handle) noexcept {
  return handle >> kHandleIdBits < first_number.load(std::memory_order_relaxed);
}

// By index of device: as many as a c10::DeviceIndex tells.
std::array<Usage, 128> all;

Usage& of(c10::DeviceIndex device) noexcept {
  return all[static_cast<size_t>(std::max<int>(device, 0))];
}

}  // namespace

void count_made(GenieStorage handle, c10::DeviceIndex device, uint64_t bytes) noexcept {
  if (is_gone(handle)) {
    return;
  }
  of(device).bytes.add(static_cast<int64_t>(bytes));
  of(device).storages.add(1);
}

void count_freed(GenieStorage handle, c10::DeviceIndex device, uint64_t bytes) noexcept {
  if (is_gone(handle)) {
    return;
  }
  of(device).bytes.take(static_cast<int64_t>(bytes));
  of(device).storages.take(1);
}

void count_passing(GenieStorage any, c10::DeviceIndex device, const Passing& passing) noexcept {
  if (is_gone(any)) {
    return;
  }
  of(device).bytes.pass(
      static_cast<int64_t>(passing.bytes), static_cast<int64_t>(passing.peak_bytes));
  of(device).storages.pass(
      static_cast<int64_t>(passing.storages), static_cast<int64_t>(passing.peak_storages));
}

void count_resized(c10::DeviceIndex device, uint64_t before, uint64_t after) noexcept {
  if (after > before) {
    of(device).bytes.add(static_cast<int64_t>(after - before));
  } else {
    of(device).bytes.take(static_cast<int64_t>(before - after));
  }
}

uint64_t used_bytes(c10::DeviceIndex device) noexcept {
  return static_cast<uint64_t>(of(device).bytes.stat().current);
}

c10::CachingDeviceAllocator::DeviceStats usage_of(c10::DeviceIndex device) {
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const Usage& usage = of(device);
  c10::CachingDeviceAllocator::DeviceStats stats;
  stats.allocation[kAll] = stats.active[kAll] = usage.storages.stat();
  // Nothing is kept in reserve here: the node does that.
  stats.allocated_bytes[kAll] = stats.active_bytes[kAll] = stats.reserved_bytes[kAll] =
      stats.requested_bytes[kAll] = usage.bytes.stat();
  return stats;
}

void reset_accumulated_usage(c10::DeviceIndex device) noexcept {
  for (Count* count : {&of(device).bytes, &of(device).storages}) {
    count->added = 0;
    count->taken = 0;
  }
}

void reset_peak_usage(c10::DeviceIndex device) noexcept {
  for (Count* count : {&of(device).bytes, &of(device).storages}) {
    count->peak = count->current.load();
  }
}

}  // namespace genie

extern "C" void genie_backend_session_changed(uint16_t first) {
  genie::first_number.store(first, std::memory_order_relaxed);
  for (genie::Usage& usage : genie::all) {
    for (genie::Count* count : {&usage.bytes, &usage.storages}) {
      count->take(count->current.load(std::memory_order_relaxed));
      count->peak.store(0, std::memory_order_relaxed);
    }
  }
}
