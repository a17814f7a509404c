// Operator calls one after the other, without Python: what a traced graph becomes.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "replay/tape.h"
#include "replay/trace.h"

namespace genie::replay {

// Its registers hold one tensor each: the first ones the inputs, then each result a new one.
class Program final : public torch::CustomClassHolder {
 public:
  explicit Program(int64_t inputs);

  // Adds a call that was traced. `codes` says, argument by argument, what is in its place (see Code);
  // `results` has the registers of its tensors; NOT_USED; or SAME minus the register of an argument that
  // it gives back.
  void add(
      const c10::intrusive_ptr<Trace>& trace,
      int64_t call,
      const std::vector<int64_t>& codes,
      const std::vector<int64_t>& results,
      int64_t site);
  // What it gives, in registers; it is complete then.
  void finish(const std::vector<int64_t>& outputs);

  // Makes the calls; `numbers` are what shapes come to this time.
  std::vector<at::Tensor> run(const c10::List<at::Tensor>& inputs, const std::vector<int64_t>& numbers) const;

  // How many runs went by a tape; for each tape that there is, how many steps it still calls; how many runs
  // were watched.
  std::tuple<int64_t, std::vector<int64_t>, int64_t> taped() const;

  // Of one step: calls it; its registers; what becomes of its results.
  void call(
      size_t step,
      torch::jit::Stack& stack,
      at::Tensor* registers,
      const std::vector<int64_t>& numbers) const;
  struct Use {
    uint32_t at;
    bool is_last;
  };
  std::vector<Use> uses(size_t step) const;
  c10::ArrayRef<int64_t> results(size_t step) const {
    const Step& of = steps_[step];
    return {results_.data() + of.results_begin, of.results_end - of.results_begin};
  }
  const c10::OperatorHandle& op(size_t step) const {
    return steps_[step].op;
  }
  uint32_t site(size_t step) const {
    return steps_[step].site;
  }
  size_t size() const {
    return steps_.size();
  }
  size_t inputs() const {
    return inputs_;
  }
  const std::vector<int64_t>& outputs() const {
    return outputs_;
  }
  std::vector<at::Tensor> outputs_of(const std::vector<at::Tensor>& registers) const;

  static constexpr int64_t NOT_USED = -1;
  static constexpr int64_t SAME = -2;

  // What stands for an argument: one code, and what follows it.
  enum Code : int64_t {
    CONSTANT = 0,  // what was traced
    TENSOR,        // register
    LAST,          // register, for the last time
    NUMBER,        // place in `numbers`
    TENSORS,       // how many; for each a register times two, plus one if for the last time; or -1 for none
    NUMBERS,       // how many; for each a place in `numbers`
    WRAPPED,       // place in `numbers`, made a tensor as Python's arguments are
  };

 private:
  struct Argument {
    Code code;
    // A register, a place in `numbers`, or a place in constants_ or lists_.
    uint32_t at;
    bool is_optional = false;
  };
  struct Step {
    c10::OperatorHandle op;
    uint32_t arguments_begin, arguments_end;
    uint32_t results_begin, results_end;
    uint32_t site;
  };

  void push(const Argument& argument, torch::jit::Stack& stack, at::Tensor* registers, const std::vector<int64_t>& numbers)
      const;
  static void take(torch::jit::Stack& stack, at::Tensor* registers, const int64_t* results, const int64_t* end);

  std::shared_ptr<const Tape> tape_for(const Key& key, bool& is_to_be_made) const;
  std::vector<at::Tensor> run_noticed(
      const Key& key,
      std::vector<at::Tensor>& registers,
      const std::vector<int64_t>& numbers) const;

  // A program that is called for more kinds of inputs is taped for the last ones.
  static constexpr size_t kTapesMax = 4;
  // Kinds of inputs that are remembered; a tape is made for those that came twice.
  static constexpr size_t kSeenMax = 8;
  // Runs that are watched, in all: watching costs more than it saves where kinds come and go, or where no
  // tape can be made.
  static constexpr size_t kWatchedMax = 16;

  size_t inputs_;
  size_t registers_;
  size_t numbers_ = 0;
  std::vector<Step> steps_;
  std::vector<Argument> arguments_;
  std::vector<int64_t> results_;
  std::vector<c10::IValue> constants_;
  std::vector<std::vector<int64_t>> lists_;
  std::vector<int64_t> outputs_;

  // Of several threads.
  mutable std::mutex mutex_;
  mutable std::deque<std::shared_ptr<const Tape>> tapes_;
  mutable std::deque<uint64_t> seen_;
  mutable int64_t taped_runs_ = 0;
  mutable size_t watched_ = 0;
};

}  // namespace genie::replay
