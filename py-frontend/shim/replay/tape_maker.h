// From a program's run to a tape.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "replay/key.h"
#include "replay/program.h"
#include "replay/tape.h"
#include "replay/taping.h"

namespace genie::replay {

// Watches a program's run and makes a tape of it.
class TapeMaker {
 public:
  TapeMaker(const Program& program, const Key& key, const std::vector<at::Tensor>& registers);

  Noticed& noticed() {
    return noticed_;
  }
  // Around each step.
  void before(size_t step, const std::vector<at::Tensor>& registers);
  void after(size_t step, const std::vector<at::Tensor>& registers);
  // Once all registers are empty; none where a run can't be replayed.
  std::shared_ptr<const Tape> finish() &&;

 private:
  class Writer;
  struct Register {
    bool is_defined = false;
    bool is_plain = false;
    bool is_view = false;
    GenieStorage storage = 0;
    uint64_t bytes = 0;
    c10::ScalarType dtype = c10::ScalarType::Undefined;
    int64_t offset = 0;
    std::vector<int64_t> sizes, strides;
    std::vector<int64_t> words;
  };
  struct Step {
    bool is_called = false;
    size_t records_end = 0;
    std::vector<Tape::Written> written;
  };

  // The results of a step that have registers of their own.
  template <typename See>
  void each_result(size_t step, const See& see) {
    for (const int64_t result : program_.results(step)) {
      if (result >= 0) {
        see(static_cast<uint32_t>(result), registers_[static_cast<size_t>(result)]);
      }
    }
  }
  size_t records_begin(size_t step) const {
    return step == 0 ? 0 : steps_[step - 1].records_end;
  }

  static Register look(const at::Tensor& tensor);
  std::vector<int64_t> versions(const std::vector<at::Tensor>& registers) const;
  std::vector<int64_t> metadata(size_t step, const std::vector<at::Tensor>& registers) const;
  bool is_made_by(size_t step, const Register& found) const;
  void find_slots();
  void find_called();

  const Program& program_;
  std::vector<int64_t> words_;
  c10::DeviceIndex device_;
  Noticed noticed_;
  std::vector<Register> registers_;
  std::vector<Step> steps_;
  size_t inputs_;
  // Of the step under way.
  uint64_t position_ = 0;
  std::vector<int64_t> versions_, metadata_;
  bool is_impossible_ = false;
  // finish()
  std::unordered_map<GenieStorage, uint32_t> slot_of_;
  std::vector<uint8_t> is_made_;
  std::vector<uint8_t> is_tensor_;  // by register: it is to be one
};

}  // namespace genie::replay
