// Elementwise operators, and those that fill in place.
#include <ATen/ExpandUtils.h>
#include <ATen/TensorIterator.h>
#include <ATen/native/TypeProperties.h>

#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

// Fills, which no shape can make wrong.
Shapes first_argument(const Operator&, Arguments, ResultBuilder& results) {
  results.alias(0);
  return Shapes::Known;
}

Shapes like_first(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.like(arguments[0].toTensor());
  return Shapes::Known;
}

Shapes contiguous_first(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  results.contiguous(self.scalar_type(), self.sizes());
  return Shapes::Known;
}

Shapes like_second(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.like(arguments[1].toTensor());
  return Shapes::Known;
}

Shapes like_real(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  results.like(self, c10::toRealValueType(self.scalar_type()));
  return Shapes::Known;
}

Shapes like_bool(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.like(arguments[0].toTensor(), c10::ScalarType::Bool);
  return Shapes::Known;
}

// What a TensorIterator gives for tensors that are broadcast together.
void broadcast(c10::ScalarType dtype, at::ArrayRef<Tensor> tensors, ResultBuilder& results) {
  at::TensorIteratorConfig config;
  config.check_all_same_dtype(false)
      .allow_cpu_scalars(true)
      .declare_static_dtype_and_device(dtype, c10::Device(c10::kMeta))
      .add_owned_output(Tensor());
  for (const Tensor& tensor : tensors) {
    config.add_owned_const_input(to_meta(tensor));
  }
  const at::TensorIterator iterator = config.build();
  const Tensor& output = iterator.output(0);
  results.fresh(dtype, output.sizes(), output.strides());
}

Shapes logical_binary(const Operator&, Arguments arguments, ResultBuilder& results) {
  broadcast(
      c10::ScalarType::Bool, {arguments[0].toTensor(), arguments[1].toTensor()}, results);
  return Shapes::Known;
}

// Operators of two tensors, or of one and a number, whose result has their promoted dtype.
Shapes promoting_binary(const Operator& op, Arguments arguments, ResultBuilder& results) {
  at::native::ResultTypeState state{};
  state = at::native::update_result_type_state(arguments[0].toTensor(), state);
  if (op.arguments[1].kind == ArgKind::Scalar) {
    state = at::native::update_result_type_state(arguments[1].toScalar(), state);
    results.like(arguments[0].toTensor(), at::native::result_type(state));
    return Shapes::Known;
  }
  state = at::native::update_result_type_state(arguments[1].toTensor(), state);
  broadcast(
      at::native::result_type(state),
      {arguments[0].toTensor(), arguments[1].toTensor()},
      results);
  return Shapes::Known;
}

Shapes where(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& condition = arguments[0].toTensor();
  if (condition.scalar_type() != c10::ScalarType::Bool &&
      condition.scalar_type() != c10::ScalarType::Byte) {
    return Shapes::AskMeta;
  }
  const Tensor& self = arguments[1].toTensor();
  const Tensor& other = arguments[2].toTensor();
  at::native::ResultTypeState state{};
  state = at::native::update_result_type_state(self, state);
  state = at::native::update_result_type_state(other, state);
  broadcast(at::native::result_type(state), {condition, self, other}, results);
  return Shapes::Known;
}

Shapes masked_fill(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  results.contiguous(
      self.scalar_type(), at::infer_size(self.sizes(), arguments[1].toTensor().sizes()));
  return Shapes::Known;
}

Shapes masked_fill_(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  const Tensor& mask = arguments[1].toTensor();
  TORCH_CHECK(
      at::is_expandable_to(mask.sizes(), self.sizes()),
      "The size of the mask ",
      mask.sizes(),
      " must be broadcastable with the size of the tensor ",
      self.sizes());
  results.alias(0);
  return Shapes::Known;
}

Shapes native_dropout(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  results.like(input);
  results.like(input, c10::ScalarType::Bool);
  return Shapes::Known;
}

}  // namespace

void add_elementwise_rules(RuleTable& table) {
  table.add(&first_argument,
      {"zero_", "fill_.Scalar", "fill_.Tensor", "copy_", "normal_", "uniform_", "bernoulli_.float",
       "exponential_", "random_", "random_.to", "random_.from", "log_normal_", "cauchy_",
       "geometric_", "relu_", "hardtanh_", "hardswish_", "abs_", "logical_not_"});
  table.add(&like_first, {"relu", "hardtanh", "hardswish", "bernoulli", "bernoulli.p", "flip"});
  table.add(&contiguous_first, {"roll", "_transformer_encoder_layer_fwd"});
  table.add(&like_real, {"abs"});
  table.add(&like_bool, {"logical_not", "isnan", "isinf"});
  table.add(&like_second, {"_adaptive_avg_pool2d_backward"});
  table.add(&logical_binary, {"logical_and", "logical_or", "logical_xor"});
  table.add(&promoting_binary, {"floor_divide", "rsub.Scalar", "rsub.Tensor"});
  table.add(&where, {"where.self"});
  table.add(&masked_fill, {"masked_fill.Scalar", "masked_fill.Tensor"});
  table.add(&masked_fill_, {"masked_fill_.Scalar", "masked_fill_.Tensor"});
  table.add(&native_dropout, {"native_dropout"});
}

}  // namespace genie
