// What a piece of Python calls of PyTorch: its operators, as the dispatcher got them.
#pragma once

#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <torch/custom_class.h>

#include <vector>

namespace genie::replay {

// What a call gave, if that is tensors only. It is not kept alive: Python's functions look whether they are the
// only ones who have a new tensor, and make another of it if not.
struct Made {
  using Tensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

  explicit Made(const c10::IValue& output);
  // A list of tensors, none in place of one that nobody has any more; or none for what is no tensors.
  c10::IValue lock() const;

  bool is_tensors = false;
  std::vector<Tensor> tensors;
};

struct Call {
  c10::OperatorName name;
  std::vector<c10::IValue> inputs;
  std::vector<Made> outputs;
};

// The outermost calls of this thread between start() and stop(), with PyTorch's own profiling hook: it sees a
// call above autocast, autograd and every mode, as the program made it.
class Trace final : public torch::CustomClassHolder {
 public:
  ~Trace() override;

  void start();
  void stop();

  // (name, overload, inputs, outputs) of each call from `first` on. What was a number for the program, and was made
  // a tensor for the call, is in a tuple of its own.
  c10::IValue calls(int64_t first) const;
  const Call& at(int64_t call) const;

  // Called by the hook; begin() says whether this is an outermost call, and so one that ends.
  bool begin(const at::RecordFunction& function);
  void end(const at::RecordFunction& function);

 private:
  std::vector<Call> calls_;
  at::CallbackHandle handle_ = at::INVALID_CALLBACK_HANDLE;
  bool is_inside_ = false;
};

}  // namespace genie::replay
