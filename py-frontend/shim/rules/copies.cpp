// Copies, and what is put together of copies.
#include <ATen/WrapDimUtils.h>

#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

Shapes copy_in_format(
    const Tensor& self,
    c10::ScalarType dtype,
    const c10::IValue& format,
    ResultBuilder& results) {
  const auto wanted =
      format.isNone() ? c10::MemoryFormat::Preserve : format.toMemoryFormat();
  if (wanted == c10::MemoryFormat::Preserve) {
    results.like(self, dtype);
  } else {
    in_format(dtype, self.sizes(), wanted, results);
  }
  return Shapes::Known;
}

Shapes clone(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  return copy_in_format(self, self.scalar_type(), arguments[1], results);
}

Shapes to_copy(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  return copy_in_format(self, dtype_or(arguments[1], self.scalar_type()), arguments[6], results);
}

Shapes repeat(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  Sizes sizes = int_list(arguments[1]);
  const size_t extra = sizes.size() - static_cast<size_t>(self.dim());
  if (static_cast<int64_t>(sizes.size()) < self.dim()) {
    return Shapes::AskMeta;
  }
  for (int64_t i = 0; i < self.dim(); ++i) {
    sizes[extra + i] *= self.size(i);
  }
  results.contiguous(self.scalar_type(), sizes);
  return Shapes::Known;
}

Shapes stack(const Operator&, Arguments arguments, ResultBuilder& results) {
  const auto tensors = arguments[0].toListRef();
  if (tensors.empty()) {
    return Shapes::AskMeta;
  }
  const Tensor& first = tensors[0].toTensor();
  for (const c10::IValue& item : tensors) {
    if (!item.toTensor().sizes().equals(first.sizes()) ||
        item.toTensor().scalar_type() != first.scalar_type()) {
      return Shapes::AskMeta;
    }
  }
  Sizes sizes(first.sizes().begin(), first.sizes().end());
  sizes.insert(
      sizes.begin() + c10::maybe_wrap_dim(arguments[1].toInt(), first.dim() + 1),
      static_cast<int64_t>(tensors.size()));
  results.contiguous(first.scalar_type(), sizes);
  return Shapes::Known;
}

// The gradient of a slice or a select: zeros of the input's sizes with the gradient in place.
Shapes view_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.contiguous(arguments[0].toTensor().scalar_type(), int_list(arguments[1]));
  return Shapes::Known;
}

}  // namespace

void add_copy_rules(RuleTable& table) {
  table.add(&clone, {"clone"});
  table.add(&to_copy, {"_to_copy"});
  table.add(&repeat, {"repeat"});
  table.add(&stack, {"stack"});
  table.add(&view_backward, {"slice_backward", "select_backward"});
}

}  // namespace genie
