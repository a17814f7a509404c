// Reductions, to one number or over dimensions.
#include <ATen/WrapDimUtilsMulti.h>

#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

Shapes to_number(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.contiguous(arguments[0].toTensor().scalar_type(), {});
  return Shapes::Known;
}

Shapes sum_all(const Operator&, Arguments arguments, ResultBuilder& results) {
  const c10::ScalarType dtype = arguments[0].toTensor().scalar_type();
  const bool integral = c10::isIntegralType(dtype, /*includeBool=*/true);
  results.contiguous(dtype_or(arguments[1], integral ? c10::ScalarType::Long : dtype), {});
  return Shapes::Known;
}

Shapes mean_all(const Operator&, Arguments arguments, ResultBuilder& results) {
  const c10::ScalarType dtype = dtype_or(arguments[1], arguments[0].toTensor().scalar_type());
  if (c10::isIntegralType(dtype, /*includeBool=*/true)) {
    return Shapes::AskMeta;
  }
  results.contiguous(dtype, {});
  return Shapes::Known;
}

// Reductions over the dimensions in argument 1; `keepdim` is the last argument.
Shapes reduce(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  if (!self.is_contiguous() || arguments[1].isNone() ||
      c10::isIntegralType(self.scalar_type(), /*includeBool=*/true)) {
    return Shapes::AskMeta;  // whose strides follow the input's
  }
  const bool keep = arguments.back().toBool();
  const Sizes dims = int_list(arguments[1]);
  const auto reduced = at::dim_list_to_bitset(c10::IntArrayRef(dims), self.dim());
  Sizes sizes;
  for (int64_t i = 0; i < self.dim(); ++i) {
    if (!dims.empty() && !reduced[i]) {
      sizes.push_back(self.size(i));
    } else if (keep) {
      sizes.push_back(1);
    }
  }
  results.contiguous(c10::toRealValueType(self.scalar_type()), sizes);
  return Shapes::Known;
}

Shapes logsumexp(const Operator& op, Arguments arguments, ResultBuilder& results) {
  // PyTorch's shape function makes it real, its kernel doesn't.
  if (arguments[0].toTensor().is_complex()) {
    return Shapes::AskNodeOnce;
  }
  return op.has_out ? Shapes::AskMeta : reduce(op, arguments, results);
}

Shapes extremum_all(const Operator& op, Arguments arguments, ResultBuilder& results) {
  if (arguments[0].toTensor().numel() == 0) {
    return Shapes::AskMeta;
  }
  return to_number(op, arguments, results);
}

}  // namespace

void add_reduction_rules(RuleTable& table) {
  table.add(&to_number, {"dot"});
  table.add(&sum_all, {"sum"});
  table.add(&mean_all, {"mean"});
  table.add(&reduce, {"var.correction", "std.correction"});
  table.add(&logsumexp, {"logsumexp", "logsumexp.out"});
  table.add(&extremum_all, {"max", "min"});
}

}  // namespace genie
