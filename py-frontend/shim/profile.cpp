#include "profile.h"

extern "C" void genie_backend_profile(int32_t is_on) {
  genie::profiling.store(is_on != 0, std::memory_order_relaxed);
}
