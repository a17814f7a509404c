// What this process's tensors take on each device, as `torch.accelerator` and `memory_allocated` tell it.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Device.h>

#include <cstdint>

#include "recorder.h"

namespace genie {

// So many bytes more, in one storage more; and less. Those of an earlier session count for nothing.
void count_made(GenieStorage handle, c10::DeviceIndex device, uint64_t bytes) noexcept;
void count_freed(GenieStorage handle, c10::DeviceIndex device, uint64_t bytes) noexcept;
// Storages that are made and freed again, and what they take at the most.
struct Passing {
  uint64_t bytes = 0, storages = 0;
  uint64_t peak_bytes = 0, peak_storages = 0;
};
// They were, beside `any`.
void count_passing(GenieStorage any, c10::DeviceIndex device, const Passing& passing) noexcept;
// A storage became larger or smaller.
void count_resized(c10::DeviceIndex device, uint64_t before, uint64_t after) noexcept;

uint64_t used_bytes(c10::DeviceIndex device) noexcept;
c10::CachingDeviceAllocator::DeviceStats usage_of(c10::DeviceIndex device);
void reset_accumulated_usage(c10::DeviceIndex device) noexcept;
void reset_peak_usage(c10::DeviceIndex device) noexcept;

}  // namespace genie

// Another session, or none, is in use: its devices' numbers begin here. What earlier ones held is gone.
extern "C" void genie_backend_session_changed(uint16_t first);
