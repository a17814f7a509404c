// The recorder's errors as the C++ exceptions that PyTorch turns into Python ones.
#pragma once

#include <c10/macros/Macros.h>

#include "log_limits.h"
#include "recorder.h"

namespace genie {

// Throws what genie_last_error() reports.
[[noreturn]] void throw_last_error();

inline void check(GenieStatus status) {
  if (C10_UNLIKELY(status != GENIE_OK)) {
    throw_last_error();
  }
}

// Refuses a tensor of more dimensions than a node takes.
[[noreturn]] void refuse_dims(size_t dims);
inline void check_dims(size_t dims) {
  if (C10_UNLIKELY(dims > limits::DIMS_MAX)) {
    refuse_dims(dims);
  }
}

}  // namespace genie
