#include "replay/tape.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "allocator.h"
#include "backend.h"
#include "errors.h"
#include "replay/program.h"

namespace genie::replay {
namespace {

// The storages of one run. Those that records made, and that no tensor has, die with it.
class Slots {
 public:
  explicit Slots(const std::vector<uint8_t>& is_made)
      : storages_(is_made.size()), held_(is_made.size()), is_ours_(is_made) {}
  Slots(const Slots&) = delete;
  Slots& operator=(const Slots&) = delete;
  ~Slots() {
    for (size_t slot = 0; slot < storages_.size(); ++slot) {
      if (is_ours_[slot] != 0 && storages_[slot] != 0) {
        genie_free(storages_[slot]);
      }
    }
  }

  std::vector<GenieStorage>& storages() {
    return storages_;
  }
  // A tensor has it, and until release() we too: records may name it that have no tensor of it.
  void hold(size_t slot, const at::Tensor& tensor) {
    is_ours_[slot] = 0;
    storages_[slot] = handle_of(tensor);
    held_[slot] = tensor.storage();
  }
  void release(size_t slot) {
    held_[slot] = {};
  }

 private:
  std::vector<GenieStorage> storages_;
  std::vector<c10::Storage> held_;
  std::vector<uint8_t> is_ours_;
};

}  // namespace

size_t Tape::called() const {
  return static_cast<size_t>(
      std::count_if(parts_.begin(), parts_.end(), [](const Part& part) { return part.step >= 0; }));
}

void Tape::append(
    size_t begin,
    size_t end,
    c10::DeviceIndex device,
    std::vector<GenieStorage>& slots) const {
  while (begin < end) {
    size_t done = 0;
    const GenieStatus status = genie_replay(
        replayed_.data() + begin, end - begin, device, slots.data(), slots.size(), &done);
    if (status == GENIE_OK) {
      return;
    }
    if (status != GENIE_NO_ROOM) {
      throw_last_error();
    }
    begin += done;
    check(genie_wait_for_room());
  }
}

std::vector<at::Tensor> Tape::run(
    const Program& program,
    const Key& key,
    std::vector<at::Tensor>& registers,
    const std::vector<int64_t>& numbers) const {
  check(genie_usable());
  Slots slots(is_made_);
  std::copy(key.storages.begin(), key.storages.end(), slots.storages().begin());
  count_passing(key.storages.front(), key.device, passing_);
  torch::jit::Stack stack;
  std::vector<int64_t> words;
  size_t record = 0;
  for (const Part& part : parts_) {
    if (part.step >= 0) {
      program.call(static_cast<size_t>(part.step), stack, registers.data(), numbers);
    } else {
      const size_t begin = std::exchange(record, part.records_end);
      append(begin, part.records_end, key.device, slots.storages());
    }
    for (const Made& made : part.made) {
      at::Tensor& tensor = registers[made.at];
      tensor = make_tensor(
          adopt_storage(slots.storages()[made.slot], made.bytes, key.device),
          made.dtype,
          made.sizes,
          made.strides);
      slots.hold(made.slot, tensor);
    }
    for (const Given& given : part.given) {
      const at::Tensor& tensor = registers[given.at];
      words.clear();
      describe(tensor, words);
      TORCH_CHECK(
          words == given.words,
          kDeviceName,
          ": ",
          program.op(static_cast<size_t>(part.step)).schema().name(),
          " gave another tensor than it did for such inputs before");
      if (given.slot != Key::NO_SLOT) {
        slots.hold(given.slot, tensor);
      }
    }
    for (const Written& written : part.written) {
      for (uint32_t i = 0; i < written.times; ++i) {
        registers[written.at].unsafeGetTensorImpl()->bump_version();
      }
    }
    for (const uint32_t at : part.dropped) {
      registers[at].reset();
    }
    for (const uint32_t slot : part.released) {
      slots.release(slot);
    }
  }
  return program.outputs_of(registers);
}

}  // namespace genie::replay
