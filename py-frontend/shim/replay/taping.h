// What is noticed while a program's calls are recorded, so that they can be recorded again without
// PyTorch: the records, the storages that they made, and those that died.
#pragma once

#include <c10/macros/Macros.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "recorder.h"

namespace genie::replay {

struct Noticed {
  struct Record {
    GenieCall call;  // without what its pointers lead to
    std::vector<uint8_t> skeleton;
    std::vector<GenieStorage> storages;
    std::vector<int64_t> params;
    std::vector<int64_t> data;
    std::vector<uint8_t> result_skeleton;
    std::vector<int64_t> result_params;
    GenieStorage first_fresh;
    std::vector<uint64_t> fresh_bytes;
  };
  struct Freed {
    GenieStorage storage;
    uint32_t step;
  };

  std::vector<Record> records;
  std::vector<Freed> freed;
  // The step of the program that is under way.
  uint32_t step = 0;
  // What this step did can't be told from its records: it drew numbers, say.
  bool is_odd = false;
  // The last record's results are being made.
  bool is_making = false;
  // Its shapes came from the node, or elements came here.
  bool is_unforeseeable = false;
};

// How many threads notice.
inline std::atomic<int32_t> noticing{0};
inline bool is_noticing() noexcept {
  return C10_UNLIKELY(noticing.load(std::memory_order_relaxed) != 0);
}

// While it lives, this thread notices.
class Noticing {
 public:
  explicit Noticing(Noticed& into);
  ~Noticing();
  Noticing(const Noticing&) = delete;
  Noticing& operator=(const Noticing&) = delete;

 private:
  Noticed* before_;
};

// A call was appended; the storages that it makes follow, until all are made.
void notice_call(const GenieCall& call, const GenieResults& results, GenieStorage first_fresh, bool draws);
void notice_made(uint64_t bytes);
void notice_all_made();
void notice_freed(GenieStorage storage);
void notice_unforeseeable();

}  // namespace genie::replay
