// The recorder's errors as the C++ exceptions that PyTorch turns into Python ones.
#pragma once

#include <c10/macros/Macros.h>

#include "recorder.h"

namespace genie {

// Throws what genie_last_error() reports.
[[noreturn]] void throw_last_error();

inline void check(GenieStatus status) {
  if (C10_UNLIKELY(status != GENIE_OK)) {
    throw_last_error();
  }
}

}  // namespace genie
