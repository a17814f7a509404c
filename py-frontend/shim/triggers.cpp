#include "triggers.h"

#include <atomic>
#include <mutex>
#include <unordered_set>

#include "errors.h"

namespace genie {
namespace {

std::mutex mutex;
std::unordered_set<uint32_t> numbers;
// Whether there are any: a call without looks at nothing else.
std::atomic<bool> any{false};

}  // namespace

void set_trigger(const std::string& name, bool waits) {
  const uint32_t number = genie_intern(name.c_str());
  const std::lock_guard<std::mutex> lock(mutex);
  if (waits) {
    numbers.insert(number);
  } else {
    numbers.erase(number);
  }
  any.store(!numbers.empty(), std::memory_order_relaxed);
}

bool has_triggers() noexcept {
  return any.load(std::memory_order_relaxed);
}

void wait_if_trigger(const Operator& op) {
  if (C10_LIKELY(!any.load(std::memory_order_relaxed))) {
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!numbers.contains(op.number)) {
      return;
    }
  }
  check(genie_barrier());
}

}  // namespace genie
