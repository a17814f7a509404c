// Operators in the namespace `genie`: what the Python device module (genie/_backend.py) needs of
// the backend. They go through PyTorch's dispatcher because that is the one way into this library
// from Python which needs no bindings.
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <cstdint>
#include <mutex>

#include "annotations.h"
#include "backend.h"
#include "errors.h"
#include "generator.h"
#include "parts.h"
#include "triggers.h"

namespace genie {
namespace {

int64_t device_count_op() {
  return genie_devices_to_be_had();
}

int64_t connected_devices_op() {
  return genie_device_count();
}

int64_t current_device_op() {
  return current_device();
}

c10::DeviceIndex checked_index(int64_t device) {
  TORCH_CHECK(
      device >= 0 && device <= INT8_MAX, "device index must be from 0 to 127, got ", device);
  return static_cast<c10::DeviceIndex>(device);
}

const at::Generator& generator_of(int64_t device) {
  return default_generator(checked_index(device));
}

void set_device_op(int64_t device) {
  set_current_device(checked_index(device));
}

void synchronize_op() {
  check(genie_barrier());
}

void manual_seed_op(int64_t device, int64_t seed) {
  at::Generator generator = generator_of(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(static_cast<uint64_t>(seed));
}

int64_t initial_seed_op(int64_t device) {
  return static_cast<int64_t>(generator_of(device).current_seed());
}

at::Tensor rng_state_op(int64_t device) {
  return generator_of(device).get_state();
}

void set_rng_state_op(int64_t device, const at::Tensor& state) {
  at::Generator generator = generator_of(device);
  generator.set_state(state);
}

}  // namespace

void register_module_ops() {
  static torch::Library genie(torch::Library::DEF, "genie", {}, __FILE__, __LINE__);
  genie.def("device_count() -> int", TORCH_FN(device_count_op));
  genie.def("connected_devices() -> int", TORCH_FN(connected_devices_op));
  genie.def("current_device() -> int", TORCH_FN(current_device_op));
  genie.def("set_device(int device) -> ()", TORCH_FN(set_device_op));
  genie.def("synchronize() -> ()", TORCH_FN(synchronize_op));
  genie.def("set_trigger(str name, bool waits) -> ()", TORCH_FN(set_trigger));
  genie.def("annotation(Tensor tensor) -> int", TORCH_FN(annotation_of));
  genie.def("elements(Tensor tensor) -> Tensor", TORCH_FN(elements_of));
  genie.def("manual_seed(int device, int seed) -> ()", TORCH_FN(manual_seed_op));
  genie.def("initial_seed(int device) -> int", TORCH_FN(initial_seed_op));
  genie.def("rng_state(int device) -> Tensor", TORCH_FN(rng_state_op));
  genie.def("set_rng_state(int device, Tensor state) -> ()", TORCH_FN(set_rng_state_op));
}

}  // namespace genie
