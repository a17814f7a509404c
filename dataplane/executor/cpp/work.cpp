#include "work.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <unordered_map>

#include "predicted.h"

namespace genie {
namespace {

using Kind = Work::Kind;

// A core reads and writes an element in this time where nothing else takes longer.
constexpr float MOVED_NS = 0.4F;
constexpr float TRANSCENDENTAL_NS = 3.0F;
constexpr float SORTED_NS = 30.0F;
// A multiplication and addition in a product, and in what is less regular.
constexpr float PRODUCT_NS = 0.04F;
constexpr float IRREGULAR_NS = 0.2F;

const std::unordered_map<std::string_view, Work>& known() {
  static const std::unordered_map<std::string_view, Work> table = [] {
    std::unordered_map<std::string_view, Work> made;
    const auto add = [&](Work work, std::initializer_list<std::string_view> names) {
      for (const auto name : names) {
        made[name] = work;
      }
    };
    add({Kind::Product, 0, PRODUCT_NS},
        {"mm", "bmm", "matmul", "linear", "mv", "addr", "_int_mm", "_addmm_activation", "dot",
         "vdot", "ger", "linalg_matmul"});
    add({Kind::Product, 1, PRODUCT_NS}, {"addmm", "addmm_", "baddbmm", "baddbmm_", "addbmm",
         "addbmm_", "addmv", "addmv_"});
    add({Kind::Product, 0, 2 * PRODUCT_NS}, {"mkldnn_rnn_layer"});
    add({Kind::Product, 0, 4 * PRODUCT_NS}, {"mkldnn_rnn_layer_backward"});
    add({Kind::Convolution, 0, PRODUCT_NS},
        {"convolution", "_convolution", "convolution_overrideable", "conv1d", "conv2d", "conv3d",
         "thnn_conv2d", "_slow_conv2d_forward", "slow_conv3d", "slow_conv3d_forward",
         "slow_conv_transpose2d", "slow_conv_transpose3d", "slow_conv_dilated2d",
         "slow_conv_dilated3d"});
    add({Kind::Convolution, 1, 2 * PRODUCT_NS},
        {"convolution_backward", "convolution_backward_overrideable", "_slow_conv2d_backward"});
    add({Kind::Attention, 0, 4 * PRODUCT_NS},
        {"_scaled_dot_product_fused_attention_overrideable",
         "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math",
         "scaled_dot_product_attention"});
    add({Kind::Attention, 1, 10 * PRODUCT_NS},
        {"_scaled_dot_product_fused_attention_overrideable_backward",
         "_scaled_dot_product_flash_attention_for_cpu_backward"});
    add({Kind::Cubic, 0, IRREGULAR_NS},
        {"_linalg_svd", "_linalg_eigh", "_linalg_eigvals", "_linalg_det", "_linalg_slogdet",
         "_linalg_solve_ex", "linalg_eig", "linalg_qr", "linalg_inv_ex", "linalg_cholesky_ex",
         "linalg_lu", "linalg_lu_factor_ex", "linalg_lu_solve", "linalg_lstsq",
         "linalg_solve_triangular", "linalg_matrix_exp", "linalg_householder_product",
         "linalg_ldl_factor_ex", "linalg_ldl_solve", "linalg_pinv", "cholesky",
         "cholesky_inverse", "cholesky_solve", "_cholesky_solve_helper", "geqrf", "orgqr",
         "ormqr", "triangular_solve", "_cdist_forward", "_cdist_backward", "cdist",
         "_thnn_fused_lstm_cell"});
    add({Kind::Elements, 0, SORTED_NS},
        {"sort", "argsort", "msort", "topk", "kthvalue", "median", "nanmedian", "mode", "_unique2",
         "unique_dim", "unique_consecutive", "_fft_c2c", "_fft_r2c", "_fft_c2r", "grid_sampler_2d",
         "grid_sampler_3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
         "_upsample_bilinear2d_aa", "histc", "multinomial"});
    add({Kind::Elements, 0, TRANSCENDENTAL_NS},
        {"exp", "exp_", "log", "log_", "sin", "cos", "tan", "tanh", "tanh_", "tanh_backward",
         "sigmoid", "sigmoid_", "erf", "erf_", "gelu", "gelu_backward", "silu", "silu_",
         "silu_backward", "mish", "softplus", "elu", "pow", "pow_", "atan2", "_softmax",
         "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data", "logsumexp",
         "native_layer_norm", "native_layer_norm_backward", "native_group_norm",
         "native_group_norm_backward", "native_batch_norm", "native_batch_norm_backward",
         "native_dropout", "bernoulli", "bernoulli_", "normal_", "randn", "rand", "uniform_",
         "exponential_", "log_normal_", "cauchy_", "geometric_", "random_", "lgamma", "digamma",
         "polygamma", "erfinv", "i0", "index", "index_put_", "_index_put_impl_", "scatter_add_",
         "max_pool2d_with_indices", "avg_pool2d", "upsample_bilinear2d", "fmod", "remainder",
         "div", "cumsum", "cumprod", "embedding_dense_backward"});
    return made;
  }();
  return table;
}

double numel(const c10::IValue& value) {
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    return tensor.defined() ? static_cast<double>(tensor.numel()) : 0;
  }
  double sum = 0;
  if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) {
      if (!item.isTensor()) {
        break;
      }
      sum += numel(item);
    }
  }
  return sum;
}

// Of the results as the client predicts them.
double predicted_elements(const GenieCall& call) {
  double sum = 0;
  for (Predicted predicted(call); !predicted.empty();) {
    const Item item = predicted.next();
    if (item.tag == out::FRESH) {
      double product = 1;
      for (size_t i = 0; i < item.n; i++) {
        product *= static_cast<double>(std::max<int64_t>(item.params[i], 0));
      }
      sum += product;
    }
  }
  return sum;
}

int64_t size_from_end(const at::Tensor& tensor, int64_t back) {
  return tensor.dim() >= back ? tensor.size(-back) : 1;
}

} // namespace

Work work_of(std::string_view name) {
  const auto found = known().find(name);
  return found == known().end() ? Work{Kind::Elements, 0, MOVED_NS} : found->second;
}

double estimate(const Work& work, const torch::jit::Stack& arguments, const GenieCall& call) {
  double elements = predicted_elements(call);
  for (const c10::IValue& argument : arguments) {
    elements += numel(argument);
  }
  if (work.kind == Kind::Elements) {
    return elements * static_cast<double>(work.ns);
  }
  const double moved = elements * static_cast<double>(MOVED_NS);
  const size_t first = work.first;
  if (arguments.size() < first + 2 || !arguments[first].isTensor()) {
    return moved;
  }
  const at::Tensor& left = arguments[first].toTensor();
  if (!left.defined()) {
    return moved;
  }
  double steps = static_cast<double>(left.numel());
  if (work.kind == Kind::Cubic) {
    steps *= static_cast<double>(size_from_end(left, 1));
  } else {
    const size_t second = first + 1 + (first == 1 && work.kind == Kind::Convolution ? 1 : 0);
    const c10::IValue& value = arguments[std::min(second, arguments.size() - 1)];
    if (!value.isTensor() || !value.toTensor().defined()) {
      return moved;
    }
    const at::Tensor& right = value.toTensor();
    const auto right_numel = static_cast<double>(right.numel());
    if (work.kind == Kind::Product) {
      // The dimension of `right` that is not summed over.
      const auto summed = static_cast<double>(std::max<int64_t>(size_from_end(left, 1), 1));
      const double batch = right.dim() > 2
          ? static_cast<double>(std::max<int64_t>(right.numel() /
                std::max<int64_t>(right.size(-1) * right.size(-2), 1), 1))
          : 1;
      steps *= right_numel / summed / batch;
    } else if (work.kind == Kind::Convolution) {
      // What follows a gradient are the input and then the weight.
      const auto channels = right.dim() > 1 ? right.size(first == 1 ? 0 : 1) : 1;
      steps *= right_numel / static_cast<double>(std::max<int64_t>(channels, 1));
    } else {
      steps *= static_cast<double>(size_from_end(right, 2));
    }
  }
  return std::max(moved, steps * static_cast<double>(work.ns));
}

} // namespace genie
