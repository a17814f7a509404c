// Operator calls one after the other, without Python: what a traced graph becomes.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <vector>

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
    uint32_t arguments_end;
    uint32_t results_end;
    uint32_t site;
  };

  void push(const Argument& argument, torch::jit::Stack& stack, at::Tensor* registers, const std::vector<int64_t>& numbers)
      const;
  static void take(torch::jit::Stack& stack, at::Tensor* registers, const int64_t* results, const int64_t* end);

  size_t inputs_;
  size_t registers_;
  size_t numbers_ = 0;
  std::vector<Step> steps_;
  std::vector<Argument> arguments_;
  std::vector<int64_t> results_;
  std::vector<c10::IValue> constants_;
  std::vector<std::vector<int64_t>> lists_;
  std::vector<int64_t> outputs_;
};

}  // namespace genie::replay
