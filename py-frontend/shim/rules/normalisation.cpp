// Normalisation, and its gradients.
#include <ATen/native/layer_norm.h>

#include <algorithm>

#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

// The dtype of the parameters, in which statistics are kept too.
c10::ScalarType parameter_dtype(const Tensor& input, const c10::IValue& weight) {
  return is_tensor(weight) ? weight.toTensor().scalar_type() : input.scalar_type();
}

Shapes native_layer_norm(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  const Sizes normalized = int_list(arguments[1]);
  const auto parameter = [&](size_t i) {
    return is_tensor(arguments[i]) ? arguments[i].toTensor() : Tensor();
  };
  at::native::_check_layer_norm_inputs(input, normalized, parameter(2), parameter(3));
  const int64_t outer = input.dim() - static_cast<int64_t>(normalized.size());
  results.contiguous(input.scalar_type(), input.sizes());
  Sizes statistics(input.sizes().begin(), input.sizes().end());
  std::fill(statistics.begin() + outer, statistics.end(), 1);
  const c10::ScalarType dtype = parameter_dtype(input, arguments[2]);
  results.contiguous(dtype, statistics);
  results.contiguous(dtype, statistics);
  return Shapes::Known;
}

// Gradients of input, weight and bias, each where the mask asks for it.
Shapes norm_backward(
    const Tensor& input,
    const c10::IValue& weight,
    c10::IntArrayRef parameter,
    const c10::IValue& mask,
    bool contiguous,
    ResultBuilder& results) {
  const auto wanted = mask.toListRef();
  const c10::ScalarType dtype = parameter_dtype(input, weight);
  if (!wanted[0].toBool()) {
    results.none();
  } else if (contiguous) {
    results.contiguous(input.scalar_type(), input.sizes());
  } else {
    results.like(input);
  }
  for (size_t i = 1; i < 3; ++i) {
    if (wanted[i].toBool()) {
      results.contiguous(dtype, parameter);
    } else {
      results.none();
    }
  }
  return Shapes::Known;
}

Shapes native_layer_norm_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  return norm_backward(
      arguments[1].toTensor(),
      arguments[5],
      int_list(arguments[2]),
      arguments[7],
      /*contiguous=*/true,
      results);
}

Shapes batch_norm(const Tensor& input, const c10::IValue& weight, bool training, ResultBuilder& results) {
  if (input.dim() < 2) {
    return Shapes::AskMeta;
  }
  // In which dtype statistics are saved depends on the device.
  if (c10::isReducedFloatingType(input.scalar_type())) {
    return Shapes::AskNodeOnce;
  }
  in_format(input.scalar_type(), input.sizes(), input.suggest_memory_format(), results);
  // Evaluation saves no statistics.
  const int64_t channels = training ? input.size(1) : 0;
  const c10::ScalarType dtype = parameter_dtype(input, weight);
  results.contiguous(dtype, {channels});
  results.contiguous(dtype, {channels});
  return Shapes::Known;
}

Shapes native_batch_norm(const Operator&, Arguments arguments, ResultBuilder& results) {
  return batch_norm(arguments[0].toTensor(), arguments[1], arguments[5].toBool(), results);
}

Shapes batch_norm_no_stats(const Operator&, Arguments arguments, ResultBuilder& results) {
  return batch_norm(arguments[0].toTensor(), arguments[1], arguments[3].toBool(), results);
}

Shapes batch_norm_no_training(const Operator&, Arguments arguments, ResultBuilder& results) {
  return batch_norm(arguments[0].toTensor(), arguments[1], /*training=*/false, results);
}

Shapes native_batch_norm_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[1].toTensor();
  return norm_backward(
      input, arguments[2], {input.size(1)}, arguments[9], /*contiguous=*/false, results);
}

Shapes native_group_norm(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  if (input.dim() < 2) {
    return Shapes::AskMeta;
  }
  in_format(input.scalar_type(), input.sizes(), input.suggest_memory_format(), results);
  const c10::ScalarType dtype = parameter_dtype(input, arguments[1]);
  const int64_t statistics[] = {arguments[3].toInt(), arguments[6].toInt()};
  results.contiguous(dtype, statistics);
  results.contiguous(dtype, statistics);
  return Shapes::Known;
}

}  // namespace

void add_normalisation_rules(RuleTable& table) {
  table.add(&native_layer_norm, {"native_layer_norm"});
  table.add(&native_layer_norm_backward, {"native_layer_norm_backward"});
  table.add(&native_batch_norm, {"native_batch_norm", "_native_batch_norm_legit"});
  table.add(&batch_norm_no_stats, {"_native_batch_norm_legit.no_stats"});
  table.add(&batch_norm_no_training, {"_native_batch_norm_legit_no_training"});
  table.add(&native_batch_norm_backward, {"native_batch_norm_backward"});
  table.add(&native_group_norm, {"native_group_norm"});
}

}  // namespace genie
