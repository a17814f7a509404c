#include "replay/taping.h"

namespace genie::replay {
namespace {

thread_local Noticed* active = nullptr;

}  // namespace

Noticing::Noticing(Noticed& into) : before_(active) {
  active = &into;
  noticing.fetch_add(1, std::memory_order_relaxed);
}

Noticing::~Noticing() {
  noticing.fetch_sub(1, std::memory_order_relaxed);
  active = before_;
}

void notice_call(
    const GenieCall& call,
    const GenieResults& results,
    GenieStorage first_fresh,
    bool draws) {
  if (active == nullptr) {
    return;
  }
  active->is_odd = active->is_odd || draws;
  active->is_making = true;
  active->records.push_back(
      {call,
       {call.skeleton, call.skeleton + call.skeleton_len},
       {call.storages, call.storages + call.n_storages},
       {call.params, call.params + call.n_params},
       {call.data, call.data + call.n_data},
       {results.skeleton, results.skeleton + results.skeleton_len},
       {results.params, results.params + results.n_params},
       first_fresh,
       {}});
}

void notice_made(uint64_t bytes) {
  if (active != nullptr && active->is_making) {
    active->records.back().fresh_bytes.push_back(bytes);
  }
}

void notice_all_made() {
  if (active != nullptr) {
    active->is_making = false;
  }
}

void notice_freed(GenieStorage storage) {
  if (active != nullptr) {
    active->freed.push_back({storage, active->step});
  }
}

void notice_unforeseeable() {
  if (active != nullptr) {
    active->is_unforeseeable = true;
  }
}

}  // namespace genie::replay
