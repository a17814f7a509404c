#include "kernels.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mkldnn_rnn_layer_backward_native.h>
#include <ATen/ops/mkldnn_rnn_layer_native.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#include <array>
#include <map>

namespace genie {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;

// As ATen/native/cuda/RNN.cu computes them, workspaces included.

Tensor with_bias(const Tensor& gates, const OptTensor& bias) {
  return bias && bias->defined() ? gates + *bias : gates;
}

// `count` equal parts of each row.
std::vector<Tensor> parts_of(const Tensor& tensor, int64_t count) {
  TORCH_CHECK(
      tensor.defined() && tensor.dim() == 2 && tensor.size(1) > 0 && tensor.size(1) % count == 0,
      "a recurrent cell needs rows of ",
      count,
      " parts");
  return tensor.chunk(count, 1);
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell(
    const Tensor& input_gates,
    const Tensor& hidden_gates,
    const Tensor& cx,
    const OptTensor& input_bias,
    const OptTensor& hidden_bias) {
  const Tensor gates =
      with_bias(input_gates, input_bias) + with_bias(hidden_gates, hidden_bias);
  const auto part = parts_of(gates, 4);
  const Tensor in = part[0].sigmoid();
  const Tensor forget = part[1].sigmoid();
  const Tensor cell = part[2].tanh();
  const Tensor out = part[3].sigmoid();
  const Tensor cy = forget * cx + in * cell;
  const Tensor hy = out * cy.tanh();
  return {hy, cy, at::cat({in, forget, cell, out}, 1)};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(
    const OptTensor& grad_hy,
    const OptTensor& grad_cy,
    const Tensor& cx,
    const Tensor& cy,
    const Tensor& workspace,
    bool has_bias) {
  const bool has_hy = grad_hy && grad_hy->defined();
  const bool has_cy = grad_cy && grad_cy->defined();
  if (!has_hy && !has_cy) {
    return {};
  }
  const auto part = parts_of(workspace, 4);
  const Tensor &in = part[0], &forget = part[1], &cell = part[2], &out = part[3];
  const Tensor tanh_cy = cy.tanh();
  const Tensor dhy = has_hy ? *grad_hy : at::zeros_like(cy);
  const Tensor dout = dhy * tanh_cy * out * (1 - out);
  Tensor dcy = dhy * out * (1 - tanh_cy * tanh_cy);
  if (has_cy) {
    dcy = dcy + *grad_cy;
  }
  const Tensor din = dcy * cell * in * (1 - in);
  const Tensor dforget = dcy * cx * forget * (1 - forget);
  const Tensor dcell = dcy * in * (1 - cell * cell);
  const Tensor gates = at::cat({din, dforget, dcell, dout}, 1);
  return {gates, dcy * forget, has_bias ? gates.sum(at::IntArrayRef{0}, false) : Tensor()};
}

std::tuple<Tensor, Tensor> gru_cell(
    const Tensor& input_gates,
    const Tensor& hidden_gates,
    const Tensor& hx,
    const OptTensor& input_bias,
    const OptTensor& hidden_bias) {
  const auto from_input = parts_of(with_bias(input_gates, input_bias), 3);
  const auto from_hidden = parts_of(with_bias(hidden_gates, hidden_bias), 3);
  const Tensor reset = (from_input[0] + from_hidden[0]).sigmoid();
  const Tensor update = (from_input[1] + from_hidden[1]).sigmoid();
  const Tensor fresh = (from_input[2] + reset * from_hidden[2]).tanh();
  const Tensor hy = fresh + update * (hx - fresh);
  return {hy, at::cat({reset, update, fresh, hx, from_hidden[2]}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(
    const Tensor& grad_hy,
    const Tensor& workspace,
    bool has_bias) {
  const auto part = parts_of(workspace, 5);
  const Tensor &reset = part[0], &update = part[1], &fresh = part[2], &hx = part[3],
               &hidden = part[4];
  const Tensor dupdate = grad_hy * (hx - fresh) * (1 - update) * update;
  const Tensor dfresh = grad_hy * (1 - update) * (1 - fresh * fresh);
  const Tensor dhidden = dfresh * reset;
  const Tensor dreset = dfresh * hidden * (1 - reset) * reset;
  const Tensor input_gates = at::cat({dreset, dupdate, dfresh}, 1);
  const Tensor hidden_gates = at::cat({dreset, dupdate, dhidden}, 1);
  const auto bias = [&](const Tensor& gates) {
    return has_bias ? gates.sum(at::IntArrayRef{0}, false) : Tensor();
  };
  return {
      input_gates, hidden_gates, grad_hy * update, bias(input_gates), bias(hidden_gates)};
}

// A layer of an LSTM by oneDNN. What its backward pass needs is kept by the mode of the calling thread,
// which is the client's to say, and here always off: `train`, which the kernel does not look at, says it.

// Of a layer: dtype, steps, batch, inputs, hidden units, biases, direction. To the bytes that its kernel keeps.
using Layer = std::array<int64_t, 7>;
std::map<Layer, int64_t> kept_bytes;
constexpr size_t kLayersMax = 4096;

Layer layer_of(const Tensor& input, int64_t hidden, bool has_biases, bool reverse) {
  return {
      static_cast<int64_t>(input.scalar_type()),
      input.size(0),
      input.size(1),
      input.size(2),
      hidden,
      has_biases ? 1 : 0,
      reverse ? 1 : 0,
  };
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rnn_layer(
    const Tensor& input,
    const Tensor& weight0,
    const Tensor& weight1,
    const Tensor& weight2,
    const Tensor& weight3,
    const Tensor& hx,
    const Tensor& cx,
    bool reverse,
    at::IntArrayRef batch_sizes,
    int64_t mode,
    int64_t hidden,
    int64_t layers,
    bool has_biases,
    bool bidirectional,
    bool batch_first,
    bool train) {
  const at::AutoGradMode keeps(train);
  auto results = at::native::mkldnn_rnn_layer(
      input, weight0, weight1, weight2, weight3, hx, cx, reverse, batch_sizes, mode, hidden, layers,
      has_biases, bidirectional, batch_first, train);
  if (train) {
    if (kept_bytes.size() >= kLayersMax) {
      kept_bytes.clear();
    }
    const Tensor& kept = std::get<3>(results);
    kept_bytes[layer_of(input, hidden, has_biases, reverse)] = static_cast<int64_t>(kept.nbytes());
  }
  return results;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> rnn_layer_backward(
    const Tensor& input,
    const Tensor& weight0,
    const Tensor& weight1,
    const Tensor& weight2,
    const Tensor& weight3,
    const Tensor& hx,
    const Tensor& cx,
    const Tensor& output,
    const Tensor& hy,
    const Tensor& cy,
    const OptTensor& grad_output,
    const OptTensor& grad_hy,
    const OptTensor& grad_cy,
    bool reverse,
    int64_t mode,
    int64_t hidden,
    int64_t layers,
    bool has_biases,
    bool train,
    bool bidirectional,
    at::IntArrayRef batch_sizes,
    bool batch_first,
    const Tensor& workspace) {
  const Layer layer = layer_of(input, hidden, has_biases, reverse);
  if (kept_bytes.find(layer) == kept_bytes.end()) {
    // Of another process, or one of many: what the forward pass keeps is what it may take.
    rnn_layer(input, weight0, weight1, weight2, weight3, hx, cx, reverse, batch_sizes, mode, hidden,
              layers, has_biases, bidirectional, batch_first, true);
  }
  // The kernel trusts it to be as large as that.
  TORCH_CHECK_VALUE(
      static_cast<int64_t>(workspace.nbytes()) == kept_bytes[layer] && workspace.is_contiguous(),
      "mkldnn_rnn_layer_backward: a workspace of another layer");
  // It writes nothing to them.
  const at::AutoGradMode keeps(false);
  return at::native::mkldnn_rnn_layer_backward(
      input, weight0, weight1, weight2, weight3, hx, cx, output, hy, cy, grad_output, grad_hy,
      grad_cy, reverse, mode, hidden, layers, has_biases, train, bidirectional, batch_sizes,
      batch_first, workspace);
}

} // namespace

void register_recurrent(torch::Library& aten) {
  aten.impl("_thnn_fused_lstm_cell", TORCH_FN(lstm_cell));
  aten.impl("_thnn_fused_lstm_cell_backward_impl", TORCH_FN(lstm_cell_backward));
  aten.impl("_thnn_fused_gru_cell", TORCH_FN(gru_cell));
  aten.impl("_thnn_fused_gru_cell_backward", TORCH_FN(gru_cell_backward));
  aten.impl("mkldnn_rnn_layer", TORCH_FN(rnn_layer));
  aten.impl("mkldnn_rnn_layer_backward", TORCH_FN(rnn_layer_backward));
}

} // namespace genie
