// Whether anybody wants to know when what happened.
#pragma once

#include <c10/macros/Macros.h>

#include <atomic>

#include "recorder.h"

namespace genie {

inline std::atomic<bool> profiling{false};

// What this thread records next begins now.
inline void note_beginning() {
  if (C10_UNLIKELY(profiling.load(std::memory_order_relaxed))) {
    genie_begins();
  }
}

}  // namespace genie
