#include "doubts.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "rules/rules.h"

namespace genie {
namespace {

const at::Tensor* tensor_at(Arguments arguments, size_t i) {
  return i < arguments.size() && is_tensor(arguments[i]) ? &arguments[i].toTensor() : nullptr;
}

bool has_type(Arguments arguments, size_t i, c10::ScalarType one, c10::ScalarType other) {
  const at::Tensor* const tensor = tensor_at(arguments, i);
  return tensor == nullptr || tensor->scalar_type() == one || tensor->scalar_type() == other;
}

bool is_integral(const at::Tensor& tensor) {
  return c10::isIntegralType(tensor.scalar_type(), /*includeBool=*/true);
}

// Whether tensors are of different types, of those that count.
template <typename Counts>
bool differ(Arguments arguments, const Counts& counts) {
  std::optional<c10::ScalarType> seen;
  for (const c10::IValue& argument : arguments) {
    if (!is_tensor(argument) || !counts(argument.toTensor())) {
      continue;
    }
    const c10::ScalarType type = argument.toTensor().scalar_type();
    if (seen.value_or(type) != type) {
      return true;
    }
    seen = type;
  }
  return false;
}

// Numbers, where nothing is promoted. Indices and masks are none.
bool mixes_types(Arguments arguments) {
  return differ(arguments, [](const at::Tensor& tensor) { return !is_integral(tensor); });
}

// The same of integers, too: products are of one type.
bool mixes_any_types(Arguments arguments) {
  return differ(arguments, [](const at::Tensor&) { return true; });
}

bool always(Arguments) {
  return true;
}

bool vectors(Arguments arguments) {
  const at::Tensor& one = arguments[0].toTensor();
  const at::Tensor& other = arguments[1].toTensor();
  return one.dim() != 1 || other.dim() != 1 || one.numel() != other.numel() ||
      mixes_any_types(arguments);
}

bool is_below(const c10::IValue& list, int64_t least) {
  for (const int64_t number : int_list(list)) {
    if (number < least) {
      return true;
    }
  }
  return false;
}

// input, weight, bias, stride, padding, dilation, transposed, output_padding, groups
bool convolution(Arguments arguments) {
  const at::Tensor& input = arguments[0].toTensor();
  const at::Tensor& weight = arguments[1].toTensor();
  const at::Tensor* const bias = tensor_at(arguments, 2);
  const int64_t groups = arguments[8].toInt();
  const bool is_transposed = arguments[6].toBool();
  if (mixes_types(arguments) || weight.dim() < 3 || input.dim() > weight.dim() || groups < 1 ||
      is_below(arguments[3], 1) || is_below(arguments[4], 0) ||
      is_below(arguments[5], 1) || is_below(arguments[7], 0)) {
    return true;
  }
  const int64_t channels = is_transposed ? weight.size(1) * groups : weight.size(0);
  return weight.size(0) < groups || (bias != nullptr && (bias->dim() != 1 || bias->size(0) != channels));
}

bool mask_is_none(Arguments arguments) {
  const at::Tensor* const value = tensor_at(arguments, 2);
  return !has_type(arguments, 1, c10::ScalarType::Bool, c10::ScalarType::Bool) ||
      (value != nullptr && value->dim() > 0);
}

bool scattered_mask_is_none(Arguments arguments) {
  return !has_type(arguments, 1, c10::ScalarType::Bool, c10::ScalarType::Bool) ||
      mixes_any_types({arguments[0], arguments[2]});
}

bool target_is_none(Arguments arguments) {
  return !has_type(arguments, 1, c10::ScalarType::Long, c10::ScalarType::Long);
}

// self, dim, index, and what goes there
bool index_is_none(Arguments arguments) {
  return !has_type(arguments, 2, c10::ScalarType::Long, c10::ScalarType::Int) || mixes_types(arguments);
}

bool copied_rows(Arguments arguments) {
  const at::Tensor& self = arguments[0].toTensor();
  const at::Tensor& index = arguments[2].toTensor();
  const at::Tensor& source = arguments[3].toTensor();
  int64_t dim = arguments[1].toInt();
  dim += dim < 0 ? self.dim() : 0;
  return index_is_none(arguments) || dim < 0 || dim >= source.dim() ||
      source.size(dim) != index.numel();
}

bool integral_input(Arguments arguments) {
  return is_integral(arguments[0].toTensor());
}

bool not_all_integral(Arguments arguments) {
  for (const c10::IValue& argument : arguments) {
    if (is_tensor(argument) && !is_integral(argument.toTensor())) {
      return true;
    }
  }
  return false;
}

bool empty_input(Arguments arguments) {
  return arguments[0].toTensor().numel() == 0;
}

// self, dim, ...: of `sort` the stable overload has one argument before it.
bool dim_is_none(Arguments arguments) {
  const int64_t dims = std::max<int64_t>(arguments[0].toTensor().dim(), 1);
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i].isInt()) {
      return arguments[i].toInt() < -dims || arguments[i].toInt() >= dims;
    }
  }
  return false;
}

bool unknown_approximation(Arguments arguments) {
  for (const c10::IValue& argument : arguments) {
    if (argument.isString() && argument.toStringRef() != "none" && argument.toStringRef() != "tanh") {
      return true;
    }
  }
  return false;
}

using Table = std::unordered_map<std::string_view, Doubt>;

const Table& table() {
  // By name, all overloads, in place or not.
  static const Table doubts = {
      {"mm", &mixes_any_types}, {"addmm", &mixes_any_types}, {"bmm", &mixes_any_types},
      {"baddbmm", &mixes_any_types}, {"addbmm", &mixes_any_types}, {"mv", &mixes_any_types},
      {"addmv", &mixes_any_types}, {"addr", &mixes_any_types}, {"linear", &mixes_any_types},
      {"complex", &mixes_any_types}, {"polar", &mixes_any_types}, {"dot", &vectors},
      {"vdot", &vectors}, {"convolution", &convolution}, {"native_layer_norm", &mixes_types},
      {"native_group_norm", &mixes_types}, {"index_put", &mixes_types},
      {"_index_put_impl", &mixes_types},
      {"_scaled_dot_product_fused_attention_overrideable", &mixes_types},
      {"smooth_l1_loss", &mixes_types}, {"smooth_l1_loss_backward", &mixes_types},
      {"huber_loss", &mixes_types}, {"huber_loss_backward", &mixes_types},
      {"mse_loss", &mixes_types}, {"mse_loss_backward", &mixes_types},
      {"soft_margin_loss", &mixes_types}, {"soft_margin_loss_backward", &mixes_types},
      {"binary_cross_entropy", &mixes_types}, {"binary_cross_entropy_backward", &mixes_types},
      {"binary_cross_entropy_with_logits", &mixes_types},
      {"multi_margin_loss", &mixes_types}, {"multi_margin_loss_backward", &mixes_types},
      {"nll_loss_forward", &target_is_none}, {"nll_loss2d_forward", &target_is_none},
      {"index_select", &index_is_none}, {"index_copy", &copied_rows},
      {"masked_fill", &mask_is_none}, {"masked_scatter", &scattered_mask_is_none},
      {"_softmax", &integral_input}, {"_log_softmax", &integral_input}, {"max", &empty_input},
      {"min", &empty_input}, {"sort", &dim_is_none}, {"bitwise_and", &not_all_integral},
      {"bitwise_or", &not_all_integral}, {"bitwise_xor", &not_all_integral},
      {"bitwise_not", &not_all_integral}, {"roll", &always}, {"bucketize", &always},
      {"searchsorted", &always}, {"multinomial", &always}, {"avg_pool3d", &always},
      {"gelu", &unknown_approximation},
  };
  return doubts;
}

}  // namespace

Doubt find_doubt(const c10::OperatorName& name) {
  std::string_view plain = std::string_view(name.name).substr(std::string_view("aten::").size());
  if (plain.back() == '_') {
    plain.remove_suffix(1);
  }
  const auto found = table().find(plain);
  return found == table().end() ? nullptr : found->second;
}

}  // namespace genie
