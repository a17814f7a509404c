// The records of a program's run without gradients, to be appended again for inputs like those: no call
// reaches PyTorch, and a storage that nobody sees has no tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "recorder.h"
#include "replay/key.h"
#include "usage.h"

namespace genie::replay {

class Program;

class Tape {
 public:
  bool fits(const Key& key) const {
    return words_ == key.words;
  }
  // Gives the program's outputs. `registers` has its inputs, which `key` is of.
  std::vector<at::Tensor> run(
      const Program& program,
      const Key& key,
      std::vector<at::Tensor>& registers,
      const std::vector<int64_t>& numbers) const;

  // How many steps of the program are still called.
  size_t called() const;

 private:
  friend class TapeMaker;

  // A tensor of a storage that a record made.
  struct Made {
    uint32_t at;
    uint32_t slot;
    c10::ScalarType dtype;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    uint64_t bytes;
  };
  // What a called step gives: what it was, and where its storage goes.
  struct Given {
    uint32_t at;
    uint32_t slot;
    std::vector<int64_t> words;
  };
  struct Written {
    uint32_t at;
    uint32_t times;
  };
  // Records one after the other; or one step that is called.
  struct Part {
    uint32_t records_end = 0;
    int64_t step = -1;
    std::vector<Made> made;
    std::vector<Given> given;
    std::vector<Written> written;
    std::vector<uint32_t> dropped;   // registers
    std::vector<uint32_t> released;  // slots
  };

  void append(
      size_t begin,
      size_t end,
      c10::DeviceIndex device,
      std::vector<GenieStorage>& slots) const;

  std::vector<int64_t> words_;
  std::vector<Part> parts_;
  // By slot, whether a record makes it.
  std::vector<uint8_t> is_made_;
  // Storages that have no tensor.
  Passing passing_;
  // What the records are made of: the pointers of replayed_ lead there.
  std::vector<uint8_t> bytes_of_;
  std::vector<int64_t> words_of_;
  std::vector<uint32_t> slots_of_;
  std::vector<GenieReplayed> replayed_;
};

}  // namespace genie::replay
