#include "kernels.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

namespace genie {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;

// A PrivateUse1 backend makes torch choose the "overrideable" attention, one operator. The CPU
// has the flash kernel for what it can do, and the composition of operators for the rest, which
// is also how torch itself chooses on the CPU.

bool has_flash(const Tensor& q, const Tensor& k, const Tensor& v, double dropout_p) {
  return dropout_p == 0 && q.dim() == 4 && q.size(1) == k.size(1) && k.size(1) == v.size(1) &&
      q.size(0) == k.size(0) && k.size(0) == v.size(0) && k.size(2) == v.size(2) &&
      q.size(3) == k.size(3) && q.size(3) == v.size(3) && q.numel() > 0 && k.numel() > 0 &&
      c10::isFloatingType(q.scalar_type());
}

Tensor dense_last(const Tensor& tensor) {
  return tensor.stride(-1) == 1 ? tensor : tensor.contiguous();
}

// The flash kernel takes masks of the query's dtype or float32, of 2 or 4 dimensions.
OptTensor flash_mask(const OptTensor& mask, const Tensor& q) {
  if (!mask || !mask->defined()) {
    return std::nullopt;
  }
  Tensor out = *mask;
  if (out.scalar_type() == at::kBool) {
    out = at::zeros(out.sizes(), q.options()).masked_fill_(out.logical_not(), -INFINITY);
  }
  if (out.dim() != 2 && out.dim() != 4) {
    out = out.expand({q.size(0), q.size(1), q.size(2), out.size(-1)});
  }
  return out;
}

bool flash_takes(const OptTensor& mask, const Tensor& q, const Tensor& k) {
  if (!mask) {
    return true;
  }
  if (mask->scalar_type() != q.scalar_type() && mask->scalar_type() != at::kFloat) {
    return false;
  }
  const auto fits = [&](int64_t at, int64_t size) {
    return mask->size(at) == 1 || mask->size(at) == size;
  };
  return fits(-1, k.size(2)) && fits(-2, q.size(2)) &&
      (mask->dim() == 2 || (fits(0, q.size(0)) && fits(1, q.size(1))));
}

std::tuple<Tensor, Tensor> attention_by_parts(
    const Tensor& q,
    const Tensor& k,
    const Tensor& v,
    const OptTensor& mask,
    double dropout_p,
    bool is_causal,
    std::optional<double> scale) {
  const bool grouped = q.dim() == 4 && q.size(1) != k.size(1);
  return at::_scaled_dot_product_attention_math(
      q, k, v, mask, dropout_p, is_causal, std::nullopt, scale, grouped);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>
attention(
    const Tensor& q,
    const Tensor& k,
    const Tensor& v,
    const OptTensor& bias,
    double dropout_p,
    bool is_causal,
    bool,
    std::optional<double> scale) {
  Tensor out;
  Tensor logsumexp;
  // Dropout is drawn from the generator's present seed; the backward pass needs it again.
  const auto seed = at::globalContext().defaultGenerator(at::kCPU).current_seed();
  const auto mask = q.dim() == 4 ? flash_mask(bias, q) : bias;
  if (has_flash(q, k, v, dropout_p) && flash_takes(mask, q, k)) {
    std::tie(out, logsumexp) = at::_scaled_dot_product_flash_attention_for_cpu(
        dense_last(q), dense_last(k), dense_last(v), 0.0, is_causal, mask, scale);
  } else {
    out = std::get<0>(attention_by_parts(q, k, v, bias, dropout_p, is_causal, scale));
  }
  const auto number = [&](int64_t value) { return at::full({}, value, q.options().dtype(at::kLong)); };
  return {
      out,
      logsumexp,
      Tensor(),
      Tensor(),
      q.sym_size(-2),
      k.sym_size(-2),
      number(static_cast<int64_t>(seed)),
      number(0),
      Tensor()};
}

// A leaf of a graph of its own, outside inference mode.
Tensor leaf(const Tensor& tensor, bool wanted) {
  return tensor.detach().clone().requires_grad_(wanted);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> attention_backward_by_parts(
    const Tensor& grad_out,
    const Tensor& q,
    const Tensor& k,
    const Tensor& v,
    const Tensor& bias,
    std::array<bool, 4> wanted,
    double dropout_p,
    bool is_causal,
    int64_t seed,
    std::optional<double> scale) {
  if (dropout_p > 0) {
    auto generator = at::globalContext().defaultGenerator(at::kCPU);
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(static_cast<uint64_t>(seed));
  }
  const c10::InferenceMode normal(false);
  const at::AutoGradMode grad_mode(true);
  const bool bias_wanted = bias.defined() && c10::isFloatingType(bias.scalar_type()) && wanted[3];
  std::vector<Tensor> leaves{leaf(q, wanted[0]), leaf(k, wanted[1]), leaf(v, wanted[2])};
  const OptTensor mask = bias.defined() ? OptTensor(leaf(bias, bias_wanted)) : std::nullopt;
  const Tensor out = std::get<0>(
      attention_by_parts(leaves[0], leaves[1], leaves[2], mask, dropout_p, is_causal, scale));
  if (mask) {
    leaves.push_back(*mask);
  }
  std::vector<Tensor> inputs;
  for (const auto& tensor : leaves) {
    if (tensor.requires_grad()) {
      inputs.push_back(tensor);
    }
  }
  if (inputs.empty()) {
    return {};
  }
  const auto grads = torch::autograd::grad({out}, inputs, {grad_out.detach().clone()});
  std::array<Tensor, 4> result;
  size_t next = 0;
  for (size_t i = 0; i < leaves.size(); i++) {
    if (leaves[i].requires_grad()) {
      result[i] = grads[next++];
    }
  }
  return {result[0], result[1], result[2], result[3]};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& grad_out,
    const Tensor& q,
    const Tensor& k,
    const Tensor& v,
    const Tensor& bias,
    std::array<bool, 4> wanted,
    const Tensor& out,
    const Tensor& logsumexp,
    const Tensor&,
    const Tensor&,
    c10::SymInt,
    c10::SymInt,
    double dropout_p,
    bool is_causal,
    const Tensor& philox_seed,
    const Tensor&,
    std::optional<double> scale) {
  const OptTensor given = bias.defined() ? OptTensor(bias) : std::nullopt;
  const auto mask = q.dim() == 4 ? flash_mask(given, q) : given;
  const bool bias_wanted = bias.defined() && wanted[3];
  const bool as_forward = q.dim() == 4 && grad_out.sizes() == q.sizes() &&
      out.sizes() == q.sizes() && logsumexp.sizes() == q.sizes().slice(0, 3);
  if (!bias_wanted && as_forward && has_flash(q, k, v, dropout_p) && flash_takes(mask, q, k)) {
    auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        dense_last(grad_out),
        dense_last(q),
        dense_last(k),
        dense_last(v),
        out,
        logsumexp,
        0.0,
        is_causal,
        mask,
        scale);
    return {dq, dk, dv, Tensor()};
  }
  const int64_t seed =
      dropout_p > 0 && philox_seed.defined() ? philox_seed.item<int64_t>() : 0;
  return attention_backward_by_parts(
      grad_out, q, k, v, bias, wanted, dropout_p, is_causal, seed, scale);
}

} // namespace

void register_attention(torch::Library& aten) {
  aten.impl("_scaled_dot_product_fused_attention_overrideable", TORCH_FN(attention));
  aten.impl(
      "_scaled_dot_product_fused_attention_overrideable_backward", TORCH_FN(attention_backward));
}

} // namespace genie
