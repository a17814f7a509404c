// Result shapes of a call whose signature was not seen before.
#pragma once

#include <ATen/core/Tensor.h>

#include "encode.h"
#include "operator.h"

namespace genie {

// Builds a result skeleton (controlplane/session/src/skeleton.rs, `out`).
class ResultBuilder {
 public:
  void none();
  void fresh(c10::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides);
  void contiguous(c10::ScalarType dtype, c10::IntArrayRef sizes);
  // What `empty_like` gives for `tensor`: its strides if they are dense, else contiguous.
  void like(const at::Tensor& tensor, c10::ScalarType dtype);
  void like(const at::Tensor& tensor) {
    like(tensor, tensor.scalar_type());
  }
  void alias(size_t tensor_index);
  void list(size_t length);

  void clear();
  GenieResults results() const noexcept;

 private:
  Stream<uint8_t> skeleton_;
  Stream<int64_t> params_;
};

// Fills `results`, or says that only the node can tell. Throws the user's shape errors. May resize
// tensors given as `out=`.
Shapes infer(const Operator& op, Arguments arguments, ResultBuilder& results);

// Shape rules and PyTorch's C++ shape functions, by operator name; null and empty if there is none.
ShapeRule find_rule(const c10::OperatorName& name);
std::optional<c10::KernelFunction> find_meta(const c10::OperatorName& name);

// A tensor of the same sizes, strides and dtype on the Meta device; a wrapped number as it is.
at::Tensor to_meta(const at::Tensor& tensor);

}  // namespace genie
