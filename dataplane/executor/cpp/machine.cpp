// What libtorch wants to know of the machine, asked for before executors lose its files.

#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include "dispatch.h"

extern "C" void genie_look_around(void) {
  try {
    // By cpuinfo, which reads /proc/cpuinfo and /sys/devices/system/cpu; kept for good.
    at::get_cpu_capability();
    // By MKL, which reads /proc/cpuinfo and moves this thread from core to core. Starts no thread.
    at::get_parallel_info();
  } catch (...) {
    // Then executors have the kernels that run everywhere.
  }
}
