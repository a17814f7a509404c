// Host memory that a program calls pinned. Here no device reads it by itself, so it is ordinary memory that
// is known to be asked for: what a program tests and hands on stays true.
#include "pinned.h"

#include <c10/core/CPUAllocator.h>

#include <map>
#include <mutex>

namespace genie {
namespace {

// Blocks that are out, by their first byte.
struct Blocks {
  std::mutex lock;
  std::map<const char*, size_t> bytes;
};

Blocks& blocks() {
  static auto* const all = new Blocks;
  return *all;
}

void give_back(void* memory) {
  {
    const std::lock_guard<std::mutex> guard(blocks().lock);
    blocks().bytes.erase(static_cast<const char*>(memory));
  }
  c10::GetDefaultCPUAllocator()->raw_deallocate(memory);
}

struct Pinned final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) {
      return {nullptr, nullptr, &give_back, c10::kCPU};
    }
    void* const memory = c10::GetDefaultCPUAllocator()->raw_allocate(bytes);
    const std::lock_guard<std::mutex> guard(blocks().lock);
    blocks().bytes.emplace(static_cast<const char*>(memory), bytes);
    return {memory, memory, &give_back, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &give_back;
  }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }
};

}  // namespace

c10::Allocator* pinned_allocator() {
  static auto* const allocator = new Pinned;
  return allocator;
}

bool is_pinned(const void* data) {
  const auto* const at = static_cast<const char*>(data);
  const std::lock_guard<std::mutex> guard(blocks().lock);
  auto after = blocks().bytes.upper_bound(at);
  if (after == blocks().bytes.begin()) {
    return false;
  }
  --after;
  return at < after->first + after->second;
}

}  // namespace genie
