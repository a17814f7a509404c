#include "replay/trace.h"

#include <c10/util/Exception.h>

#include <memory>
#include <string>
#include <utility>

namespace genie::replay {
namespace {

// A graph has at most so many calls that are worth a program.
constexpr size_t kCallsMax = 1 << 16;

thread_local Trace* active = nullptr;

// Marks the outermost call.
struct Outermost final : at::ObserverContext {};

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  if (active == nullptr || !active->begin(function)) {
    return nullptr;
  }
  return std::make_unique<Outermost>();
}

void on_end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (active != nullptr && context != nullptr) {
    active->end(function);
  }
}

// A number among the program's arguments, which was made a tensor for the call.
bool is_number(const c10::IValue& value) {
  if (!value.isTensor() || !value.toTensor().defined()) {
    return false;
  }
  const c10::TensorImpl* impl = value.toTensor().unsafeGetTensorImpl();
  return impl->is_wrapped_number() && !impl->is_python_dispatch();
}

}  // namespace

Made::Made(const c10::IValue& output) {
  if (output.isTensor()) {
    is_tensors = true;
    tensors.emplace_back(output.toTensor().getIntrusivePtr());
  } else if (output.isTensorList()) {
    is_tensors = true;
    for (const at::Tensor& tensor : output.toTensorVector()) {
      tensors.emplace_back(tensor.getIntrusivePtr());
    }
  }
}

c10::IValue Made::lock() const {
  if (!is_tensors) {
    return {};
  }
  c10::impl::GenericList found(c10::AnyType::get());
  for (const Tensor& tensor : tensors) {
    at::Tensor locked(tensor.lock());
    found.push_back(locked.defined() ? c10::IValue(std::move(locked)) : c10::IValue());
  }
  return found;
}

Trace::~Trace() {
  stop();
}

void Trace::start() {
  TORCH_CHECK(active == nullptr, "this thread is being traced already");
  active = this;
  is_inside_ = false;
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&on_start, &on_end)
                                           .needsInputs(true)
                                           .needsOutputs(true)
                                           .scopes({at::RecordScope::FUNCTION}));
}

void Trace::stop() {
  if (handle_ != at::INVALID_CALLBACK_HANDLE) {
    at::removeCallback(handle_);
    handle_ = at::INVALID_CALLBACK_HANDLE;
  }
  if (active == this) {
    active = nullptr;
  }
}

bool Trace::begin(const at::RecordFunction& function) {
  if (is_inside_) {
    return false;
  }
  TORCH_CHECK(calls_.size() < kCallsMax, "a graph of more than ", kCallsMax, " calls");
  is_inside_ = true;
  // What is no operator has no name; nobody will find it.
  auto name = function.operator_name().value_or(c10::OperatorName{"", ""});
  const auto inputs = function.inputs();
  calls_.push_back({std::move(name), std::vector<c10::IValue>(inputs.begin(), inputs.end()), {}});
  return true;
}

void Trace::end(const at::RecordFunction& function) {
  is_inside_ = false;
  for (const c10::IValue& output : function.outputs()) {
    calls_.back().outputs.emplace_back(output);
  }
}

c10::IValue Trace::calls(int64_t first) const {
  c10::impl::GenericList found(c10::AnyType::get());
  for (size_t i = static_cast<size_t>(first); i < calls_.size(); ++i) {
    const Call& call = calls_[i];
    c10::impl::GenericList inputs(c10::AnyType::get());
    for (const c10::IValue& input : call.inputs) {
      inputs.push_back(is_number(input) ? c10::ivalue::Tuple::create(input) : input);
    }
    c10::impl::GenericList outputs(c10::AnyType::get());
    for (const Made& output : call.outputs) {
      outputs.push_back(output.lock());
    }
    found.push_back(
        c10::ivalue::Tuple::create(call.name.name, call.name.overload_name, inputs, outputs));
  }
  return found;
}

const Call& Trace::at(int64_t call) const {
  return calls_.at(static_cast<size_t>(call));
}

}  // namespace genie::replay
