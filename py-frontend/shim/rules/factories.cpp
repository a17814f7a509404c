// Tensors that are made of numbers.
#include <cmath>
#include <limits>

#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

c10::ScalarType factory_dtype(const Operator& op, Arguments arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (op.arguments[i].kind == ArgKind::Enum) {
      return static_cast<c10::ScalarType>(arguments[i].toInt());  // adapt.cpp has chosen it
    }
  }
  TORCH_INTERNAL_ASSERT(false, "a factory without a dtype");
}

Shapes filled(const Operator& op, Arguments arguments, ResultBuilder& results) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (op.arguments[i].kind == ArgKind::IntList) {
      const Sizes sizes = int_list(arguments[i]);
      for (const int64_t size : sizes) {
        TORCH_CHECK(
            size >= 0,
            "Trying to create tensor with negative dimension ",
            size,
            ": ",
            c10::IntArrayRef(sizes));
      }
      results.contiguous(factory_dtype(op, arguments), sizes);
      return Shapes::Known;
    }
  }
  return Shapes::AskMeta;
}

Shapes scalar_tensor(const Operator& op, Arguments arguments, ResultBuilder& results) {
  results.contiguous(factory_dtype(op, arguments), {});
  return Shapes::Known;
}

Shapes arange(const Operator& op, Arguments arguments, ResultBuilder& results) {
  const bool has_start = op.arguments[1].kind == ArgKind::Scalar;
  const bool has_step = op.arguments[2].kind == ArgKind::Scalar;
  const c10::Scalar start = has_start ? arguments[0].toScalar() : c10::Scalar(0);
  const c10::Scalar end = arguments[has_start ? 1 : 0].toScalar();
  const c10::Scalar step = has_step ? arguments[2].toScalar() : c10::Scalar(1);
  if (start.isComplex() || end.isComplex() || step.isComplex()) {
    return Shapes::AskMeta;
  }
  const c10::ScalarType dtype = factory_dtype(op, arguments);
  const double from = start.toDouble();
  const double to = end.toDouble();
  const double by = step.toDouble();
  TORCH_CHECK(by != 0, "step must be nonzero");
  TORCH_CHECK(std::isfinite(from) && std::isfinite(to), "unsupported range: ", from, " -> ", to);
  TORCH_CHECK(
      (by > 0 && to >= from) || (by < 0 && to <= from),
      "upper bound and lower bound inconsistent with step sign");
  double size = 0;
  if (dtype == c10::ScalarType::Long) {
    // Exactly, as large integers would lose their low digits as doubles.
    const int64_t a = start.to<int64_t>();
    const int64_t b = end.to<int64_t>();
    const int64_t s = step.to<int64_t>();
    TORCH_CHECK(s != 0, "step must be nonzero");
    size = std::ceil(static_cast<double>(b - a) / static_cast<double>(s));
  } else {
    size = std::ceil((to - from) / by);
  }
  TORCH_CHECK(
      size >= 0 && size <= static_cast<double>(std::numeric_limits<int64_t>::max()),
      "invalid size, possible overflow?");
  results.contiguous(dtype, {static_cast<int64_t>(size)});
  return Shapes::Known;
}

Shapes linspace(const Operator& op, Arguments arguments, ResultBuilder& results) {
  const int64_t steps = arguments[2].toInt();
  TORCH_CHECK(steps >= 0, "number of steps must be non-negative");
  results.contiguous(factory_dtype(op, arguments), {steps});
  return Shapes::Known;
}

Shapes eye(const Operator& op, Arguments arguments, ResultBuilder& results) {
  const int64_t rows = arguments[0].toInt();
  const int64_t columns = op.arguments[1].kind == ArgKind::Int ? arguments[1].toInt() : rows;
  TORCH_CHECK(rows >= 0, "n must be greater or equal to 0, got ", rows);
  TORCH_CHECK(columns >= 0, "m must be greater or equal to 0, got ", columns);
  results.contiguous(factory_dtype(op, arguments), {rows, columns});
  return Shapes::Known;
}

Shapes randperm(const Operator& op, Arguments arguments, ResultBuilder& results) {
  TORCH_CHECK(arguments[0].toInt() >= 0, "n must be non-negative, got", arguments[0].toInt());
  results.contiguous(factory_dtype(op, arguments), {arguments[0].toInt()});
  return Shapes::Known;
}

Shapes window(const Operator& op, Arguments arguments, ResultBuilder& results) {
  const int64_t length = arguments[0].toInt();
  TORCH_CHECK(length >= 0, "kaiser_window requires non-negative window_length, got window_length=", length);
  results.contiguous(factory_dtype(op, arguments), {length});
  return Shapes::Known;
}

}  // namespace

void add_factory_rules(RuleTable& table) {
  table.add(&filled,
      {"zeros", "ones", "full", "rand", "rand.generator", "randn", "randn.generator", "randint",
       "randint.generator", "randint.low", "randint.low_generator"});
  table.add(&scalar_tensor, {"scalar_tensor"});
  table.add(&arange, {"arange", "arange.start", "arange.start_step"});
  table.add(&linspace, {"linspace", "logspace"});
  table.add(&window, {"kaiser_window", "kaiser_window.periodic", "kaiser_window.beta"});
  table.add(&eye, {"eye", "eye.m"});
  table.add(&randperm, {"randperm", "randperm.generator"});
}

}  // namespace genie
