// Names that every part of the backend shares.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "recorder.h"

namespace genie {

inline constexpr c10::DeviceType kRemote = c10::DeviceType::PrivateUse1;
inline constexpr const char* kDeviceName = "remote_accelerator";

inline bool is_remote(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kRemote;
}

// The calling thread's current device, for `remote_accelerator` without an index.
c10::DeviceIndex current_device() noexcept;
void set_current_device(c10::DeviceIndex index) noexcept;
// Raises for a device that the session does not have. Without a session there are none, and the recorder says
// what to do about that.
void check_ordinal(c10::DeviceIndex index);

inline c10::DeviceIndex index_or_current(c10::Device device) noexcept {
  return device.has_index() ? device.index() : current_device();
}

// Parts of the registration, in the order in which register.cpp runs them.
void register_guard();
void register_allocator();
void register_hooks();
void register_recorded_operators();
void register_kernels();
void register_fallback();
void register_autocast();
void register_module_ops();
void register_split();
void register_recurrent();
void register_layouts();
void register_replay();

}  // namespace genie
