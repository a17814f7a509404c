#include "replay/program.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/List.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "backend.h"
#include "replay/key.h"
#include "replay/tape_maker.h"

namespace genie::replay {
namespace {

// The line that the calls of a program are of, while it runs.
class SiteScope {
 public:
  SiteScope() = default;
  ~SiteScope() {
    genie_set_site(0);
  }
  SiteScope(const SiteScope&) = delete;
  SiteScope& operator=(const SiteScope&) = delete;
};

}  // namespace

Program::Program(int64_t inputs)
    : inputs_(static_cast<size_t>(inputs)), registers_(static_cast<size_t>(inputs)) {}

void Program::add(
    const c10::intrusive_ptr<Trace>& trace,
    int64_t call,
    const std::vector<int64_t>& codes,
    const std::vector<int64_t>& results,
    int64_t site) {
  const Call& traced = trace->at(call);
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(
      traced.name.name.c_str(), traced.name.overload_name.c_str());
  const auto arguments_begin = static_cast<uint32_t>(arguments_.size());
  const auto results_begin = static_cast<uint32_t>(results_.size());
  size_t at = 0;
  const auto next = [&] {
    TORCH_CHECK(at < codes.size(), "codes that end early");
    return codes[at++];
  };
  const auto schema_arguments = op.schema().arguments();
  TORCH_CHECK(traced.inputs.size() == schema_arguments.size(), "a call without all of its arguments");
  for (size_t i = 0; i < traced.inputs.size(); ++i) {
    Argument argument{static_cast<Code>(next()), 0};
    switch (argument.code) {
      case CONSTANT:
        argument.at = static_cast<uint32_t>(constants_.size());
        constants_.push_back(traced.inputs[i]);
        break;
      case TENSOR:
      case LAST:
      case NUMBER:
      case WRAPPED:
        argument.at = static_cast<uint32_t>(next());
        break;
      case TENSORS:
      case NUMBERS: {
        argument.is_optional = argument.code == TENSORS && !traced.inputs[i].isTensorList();
        argument.at = static_cast<uint32_t>(lists_.size());
        auto& list = lists_.emplace_back();
        for (int64_t left = next(); left > 0; --left) {
          list.push_back(next());
        }
        break;
      }
      default:
        TORCH_CHECK(false, "an unknown code");
    }
    arguments_.push_back(argument);
  }
  for (const int64_t result : results) {
    registers_ = std::max(registers_, static_cast<size_t>(std::max<int64_t>(result, -1) + 1));
    results_.push_back(result);
  }
  steps_.push_back(
      {op,
       arguments_begin,
       static_cast<uint32_t>(arguments_.size()),
       results_begin,
       static_cast<uint32_t>(results_.size()),
       static_cast<uint32_t>(site)});
}

void Program::finish(const std::vector<int64_t>& outputs) {
  outputs_ = outputs;
  const auto check = [&](int64_t at) {
    TORCH_CHECK(at >= 0 && static_cast<size_t>(at) < registers_, "a register that nothing is put into");
  };
  for (const int64_t output : outputs_) {
    check(output);
  }
  for (const int64_t result : results_) {
    if (result <= SAME) {
      check(SAME - result);
    }
  }
  for (const Argument& argument : arguments_) {
    if (argument.code == TENSOR || argument.code == LAST) {
      check(argument.at);
    } else if (argument.code == TENSORS) {
      for (const int64_t code : lists_[argument.at]) {
        check(std::max<int64_t>(code, 0) >> 1);
      }
    } else if (argument.code == NUMBER || argument.code == WRAPPED) {
      numbers_ = std::max<size_t>(numbers_, argument.at + 1);
    } else if (argument.code == NUMBERS) {
      for (const int64_t place : lists_[argument.at]) {
        TORCH_CHECK(place >= 0, "a number in no place");
        numbers_ = std::max(numbers_, static_cast<size_t>(place) + 1);
      }
    }
  }
}

void Program::push(
    const Argument& argument,
    torch::jit::Stack& stack,
    at::Tensor* registers,
    const std::vector<int64_t>& numbers) const {
  switch (argument.code) {
    case CONSTANT:
      stack.push_back(constants_[argument.at]);
      return;
    case TENSOR:
      stack.emplace_back(registers[argument.at]);
      return;
    case LAST:
      stack.emplace_back(std::move(registers[argument.at]));
      return;
    case NUMBER:
      stack.emplace_back(numbers[argument.at]);
      return;
    case NUMBERS: {
      c10::List<int64_t> list;
      list.reserve(lists_[argument.at].size());
      for (const int64_t place : lists_[argument.at]) {
        list.push_back(numbers[static_cast<size_t>(place)]);
      }
      stack.emplace_back(std::move(list));
      return;
    }
    case WRAPPED: {
      at::Tensor tensor = c10::scalar_to_tensor(numbers[argument.at]);
      tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
      stack.emplace_back(std::move(tensor));
      return;
    }
    case TENSORS:
      break;
  }
  const auto item = [&](int64_t code) {
    at::Tensor& held = registers[code >> 1];
    return (code & 1) != 0 ? std::move(held) : held;
  };
  const auto& codes = lists_[argument.at];
  if (argument.is_optional) {
    c10::List<std::optional<at::Tensor>> list;
    list.reserve(codes.size());
    for (const int64_t code : codes) {
      list.push_back(code < 0 ? std::nullopt : std::optional<at::Tensor>(item(code)));
    }
    stack.emplace_back(std::move(list));
  } else {
    c10::List<at::Tensor> list;
    list.reserve(codes.size());
    for (const int64_t code : codes) {
      list.push_back(item(code));
    }
    stack.emplace_back(std::move(list));
  }
}

void Program::take(
    torch::jit::Stack& stack,
    at::Tensor* registers,
    const int64_t* results,
    const int64_t* end) {
  const auto keep = [&](at::Tensor&& tensor) {
    TORCH_CHECK(results != end, "a call with more results than were traced");
    if (*results >= 0) {
      registers[*results] = std::move(tensor);
    } else if (*results <= SAME) {
      // Which tensors are one is part of what was traced.
      TORCH_CHECK(
          tensor.is_same(registers[SAME - *results]),
          kDeviceName,
          ": an operator gave another tensor than its argument, as it did when it was traced");
    }
    ++results;
  };
  for (c10::IValue& value : stack) {
    if (value.isTensor()) {
      keep(std::move(value).toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        keep(at::Tensor(tensor));
      }
    }
  }
  TORCH_CHECK(results == end, "a call with fewer results than were traced");
  stack.clear();
}

void Program::call(
    size_t step,
    torch::jit::Stack& stack,
    at::Tensor* registers,
    const std::vector<int64_t>& numbers) const {
  const Step& of = steps_[step];
  for (uint32_t i = of.arguments_begin; i < of.arguments_end; ++i) {
    push(arguments_[i], stack, registers, numbers);
  }
  genie_set_site(of.site);
  of.op.callBoxed(stack);
  take(stack, registers, results_.data() + of.results_begin, results_.data() + of.results_end);
}

std::vector<Program::Use> Program::uses(size_t step) const {
  std::vector<Use> found;
  for (uint32_t i = steps_[step].arguments_begin; i < steps_[step].arguments_end; ++i) {
    const Argument& argument = arguments_[i];
    if (argument.code == TENSOR || argument.code == LAST) {
      found.push_back({argument.at, argument.code == LAST});
    } else if (argument.code == TENSORS) {
      for (const int64_t code : lists_[argument.at]) {
        if (code >= 0) {
          found.push_back({static_cast<uint32_t>(code >> 1), (code & 1) != 0});
        }
      }
    }
  }
  return found;
}

std::vector<at::Tensor> Program::outputs_of(const std::vector<at::Tensor>& registers) const {
  std::vector<at::Tensor> outputs;
  outputs.reserve(outputs_.size());
  for (const int64_t output : outputs_) {
    outputs.push_back(registers[static_cast<size_t>(output)]);
  }
  return outputs;
}

std::tuple<int64_t, std::vector<int64_t>, int64_t> Program::taped() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<int64_t> called;
  for (const auto& tape : tapes_) {
    called.push_back(static_cast<int64_t>(tape->called()));
  }
  return {taped_runs_, called, static_cast<int64_t>(watched_)};
}

std::shared_ptr<const Tape> Program::tape_for(const Key& key, bool& is_to_be_made) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& tape : tapes_) {
    if (tape->fits(key)) {
      ++taped_runs_;
      return tape;
    }
  }
  if (watched_ == kWatchedMax) {
    return nullptr;
  }
  const uint64_t hash = key.hash();
  is_to_be_made = std::find(seen_.begin(), seen_.end(), hash) != seen_.end();
  if (is_to_be_made) {
    ++watched_;
  } else {
    seen_.push_back(hash);
    if (seen_.size() > kSeenMax) {
      seen_.pop_front();
    }
  }
  return nullptr;
}

std::vector<at::Tensor> Program::run_noticed(
    const Key& key,
    std::vector<at::Tensor>& registers,
    const std::vector<int64_t>& numbers) const {
  TapeMaker maker(*this, key, registers);
  std::vector<at::Tensor> outputs;
  {
    const Noticing noticing(maker.noticed());
    torch::jit::Stack stack;
    for (size_t step = 0; step < steps_.size(); ++step) {
      maker.before(step, registers);
      call(step, stack, registers.data(), numbers);
      maker.after(step, registers);
    }
    outputs = outputs_of(registers);
    // What nobody has any longer dies while it is noticed.
    maker.noticed().step = static_cast<uint32_t>(steps_.size());
    registers.clear();
  }
  if (auto tape = std::move(maker).finish()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    tapes_.push_front(std::move(tape));
    if (tapes_.size() > kTapesMax) {
      tapes_.pop_back();
    }
  }
  return outputs;
}

std::vector<at::Tensor> Program::run(
    const c10::List<at::Tensor>& inputs,
    const std::vector<int64_t>& numbers) const {
  TORCH_CHECK(inputs.size() == inputs_, "a program of ", inputs_, " inputs got ", inputs.size());
  TORCH_CHECK(numbers.size() >= numbers_, "a program of ", numbers_, " numbers got ", numbers.size());
  std::vector<at::Tensor> registers(registers_);
  for (size_t i = 0; i < inputs_; ++i) {
    registers[i] = inputs.get(i);
  }
  const SiteScope scope;
  std::optional<at::AutoDispatchBelowAutograd> below;
  if (is_without_autograd()) {
    below.emplace();
    if (const auto key = Key::of({registers.data(), inputs_}, numbers)) {
      bool is_to_be_made = false;
      if (const auto tape = tape_for(*key, is_to_be_made)) {
        return tape->run(*this, *key, registers, numbers);
      }
      if (is_to_be_made) {
        return run_noticed(*key, registers, numbers);
      }
    }
  }
  torch::jit::Stack stack;
  for (size_t step = 0; step < steps_.size(); ++step) {
    call(step, stack, registers.data(), numbers);
  }
  return outputs_of(registers);
}

}  // namespace genie::replay
