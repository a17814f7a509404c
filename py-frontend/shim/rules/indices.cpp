// Operators that select or write by indices.
#include <ATen/ExpandUtils.h>
#include <ATen/TensorUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/ops/index_meta_dispatch.h>

#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

bool is_mask(const c10::IValue& index) {
  return is_tensor(index) &&
      (index.toTensor().scalar_type() == c10::ScalarType::Bool ||
       index.toTensor().scalar_type() == c10::ScalarType::Byte);
}

bool any_mask(const c10::IValue& indices) {
  for (const c10::IValue& index : indices.toListRef()) {
    if (is_mask(index)) {
      return true;
    }
  }
  return false;
}

// Shapes that differ between kinds of devices.
Shapes ask_node(const Operator&, Arguments, ResultBuilder&) {
  return Shapes::AskNode;
}

// Masks have as many results as true elements, which only the node can count.
Shapes index(const Operator&, Arguments arguments, ResultBuilder&) {
  return any_mask(arguments[1]) ? Shapes::AskNode : Shapes::AskMeta;
}

// Without masks, the values must fit what the indices select.
void check_index_put(Arguments arguments) {
  if (any_mask(arguments[1])) {
    return;
  }
  c10::List<std::optional<Tensor>> indices;
  for (const c10::IValue& index : arguments[1].toListRef()) {
    indices.push_back(is_tensor(index) ? std::optional<Tensor>(to_meta(index.toTensor())) : std::nullopt);
  }
  const Tensor selected = at::meta::index(to_meta(arguments[0].toTensor()), indices);
  const Tensor& values = arguments[2].toTensor();
  TORCH_CHECK(
      at::is_expandable_to(values.sizes(), selected.sizes()),
      "shape mismatch: value tensor of shape ",
      values.sizes(),
      " cannot be broadcast to indexing result of shape ",
      selected.sizes());
}

Shapes index_put_(const Operator&, Arguments arguments, ResultBuilder& results) {
  check_index_put(arguments);
  results.alias(0);
  return Shapes::Known;
}

Shapes index_put(const Operator&, Arguments arguments, ResultBuilder& results) {
  check_index_put(arguments);
  results.like(arguments[0].toTensor());
  return Shapes::Known;
}

Shapes index_select(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  const Tensor& index = arguments[2].toTensor();
  if (self.dim() == 0 || index.dim() > 1 ||
      !(index.scalar_type() == c10::ScalarType::Long ||
        index.scalar_type() == c10::ScalarType::Int)) {
    return Shapes::AskMeta;
  }
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  sizes[c10::maybe_wrap_dim(arguments[1].toInt(), self.dim())] = index.numel();
  results.contiguous(self.scalar_type(), sizes);
  return Shapes::Known;
}

Shapes embedding(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& weight = arguments[0].toTensor();
  const Tensor& indices = arguments[1].toTensor();
  TORCH_CHECK(weight.dim() == 2, "'weight' must be 2-D");
  at::checkScalarTypes(
      "embedding", at::TensorArg(indices, "indices", 1), {at::kLong, at::kInt});
  Sizes sizes(indices.sizes().begin(), indices.sizes().end());
  sizes.push_back(weight.size(1));
  results.contiguous(weight.scalar_type(), sizes);
  return Shapes::Known;
}

Shapes embedding_dense_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& gradient = arguments[0].toTensor();
  results.contiguous(gradient.scalar_type(), {arguments[2].toInt(), gradient.size(-1)});
  return Shapes::Known;
}

Shapes repeat_interleave(const Operator&, Arguments arguments, ResultBuilder& results) {
  if (arguments[1].isNone()) {
    return Shapes::AskNode;
  }
  results.contiguous(arguments[0].toTensor().scalar_type(), {arguments[1].toInt()});
  return Shapes::Known;
}

Shapes multinomial(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  if (self.dim() != 1 && self.dim() != 2) {
    return Shapes::AskMeta;
  }
  Sizes sizes(self.sizes().begin(), self.sizes().end() - 1);
  sizes.push_back(arguments[1].toInt());
  results.contiguous(c10::ScalarType::Long, sizes);
  return Shapes::Known;
}

}  // namespace

void add_index_rules(RuleTable& table) {
  table.add(&ask_node, {"_embedding_bag", "_embedding_bag_forward_only"});
  table.add(&index, {"index.Tensor", "_unsafe_index.Tensor"});
  table.add(&index_put_, {"index_put_", "_index_put_impl_"});
  table.add(&index_put, {"index_put", "_unsafe_index_put"});
  table.add(&index_select, {"index_select"});
  table.add(&embedding, {"embedding"});
  table.add(&embedding_dense_backward, {"embedding_dense_backward"});
  table.add(&repeat_interleave, {"repeat_interleave.Tensor"});
  table.add(&multinomial, {"multinomial"});
}

}  // namespace genie
