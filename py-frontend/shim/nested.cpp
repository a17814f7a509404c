// What nested tensors do by way of padded ones.
#include <ATen/NestedTensorImpl.h>
#include <ATen/ops/_nested_from_padded_and_nested_example.h>
#include <ATen/ops/_transformer_encoder_layer_fwd.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/to_padded_tensor_native.h>

#include <optional>
#include <vector>

#include "backend.h"
#include "layouts.h"

namespace genie {
namespace {

using at::Tensor;

// True where a row of the padded tensor has come to its end.
Tensor beyond(const Tensor& nested, int64_t length) {
  // The sizes are on the CPU: a row for each tensor.
  const Tensor lengths = at::native::get_nested_tensor_impl(nested)->get_nested_sizes().select(1, 0);
  const Tensor places = at::arange(length, lengths.options());
  return places.unsqueeze(0).ge(lengths.unsqueeze(1)).to(nested.device());
}

// The sizes of all its tensors and the buffer decide, and operators do the rest.
Tensor to_padded(const Tensor& self, double padding, at::OptionalIntArrayRef size) {
  return at::native::NestedTensor_to_padded_tensor_generic(self, padding, size);
}

Tensor encoder_layer(
    const Tensor& src,
    int64_t embed_dim,
    int64_t num_heads,
    const Tensor& qkv_weight,
    const Tensor& qkv_bias,
    const Tensor& proj_weight,
    const Tensor& proj_bias,
    bool use_gelu,
    bool norm_first,
    double eps,
    const Tensor& norm_weight_1,
    const Tensor& norm_bias_1,
    const Tensor& norm_weight_2,
    const Tensor& norm_bias_2,
    const Tensor& ffn_weight_1,
    const Tensor& ffn_bias_1,
    const Tensor& ffn_weight_2,
    const Tensor& ffn_bias_2,
    const std::optional<Tensor>& mask,
    std::optional<int64_t> /*mask_type*/) {
  TORCH_CHECK(!mask.has_value(), "a nested tensor has no mask: its sizes are one");
  constexpr int64_t kKeyPadding = 1;
  const Tensor padded = to_padded(src, 0.0, std::nullopt);
  const Tensor result = at::_transformer_encoder_layer_fwd(
      padded, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, use_gelu,
      norm_first, eps, norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2, ffn_weight_1,
      ffn_bias_1, ffn_weight_2, ffn_bias_2, beyond(src, padded.size(1)), kKeyPadding);
  return at::_nested_from_padded_and_nested_example(result, src);
}

}  // namespace

void register_nested(torch::Library& nested) {
  nested.impl("to_padded_tensor", TORCH_FN(to_padded));
  nested.impl("_transformer_encoder_layer_fwd", TORCH_FN(encoder_layer));
}

}  // namespace genie
