// `nn.LSTM` where the node's device is a CPU: a call for each layer and direction, as PyTorch has there, and not
// some for each step.
#include <ATen/autocast_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/lstm_native.h>
#include <ATen/ops/mkldnn_rnn_layer.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "backend.h"
#include "errors.h"
#include "parts.h"

namespace genie {
namespace {

using at::Tensor;

// The kernel's own number for an LSTM.
constexpr int64_t kLstm = 2;

bool is_float(const Tensor& tensor, c10::Device device) {
  return tensor.defined() && tensor.device() == device && is_plain(tensor) &&
      tensor.scalar_type() == c10::ScalarType::Float &&
      !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

// What the kernel is for. All else is made of operators of one step each, by PyTorch.
bool is_of_one_call(
    const Tensor& input,
    at::TensorList hx,
    at::TensorList params,
    bool has_biases,
    int64_t layers_and_directions) {
  if (!is_remote(input) || input.dim() != 3 || input.numel() == 0 ||
      !is_float(input, input.device()) || genie_is_host(input.device().index()) == 0 ||
      at::autocast::is_autocast_enabled(kRemote)) {
    return false;
  }
  for (const at::TensorList tensors : {hx, params}) {
    for (const Tensor& tensor : tensors) {
      if (!is_float(tensor, input.device())) {
        return false;
      }
    }
  }
  // With projections the states differ in size.
  return hx.size() == 2 && hx[0].dim() == 3 && hx[0].sizes().equals(hx[1].sizes()) &&
      hx[0].size(0) == layers_and_directions &&
      params.size() == static_cast<size_t>(layers_and_directions) * (has_biases ? 4 : 2);
}

bool needs_gradients(const Tensor& input, at::TensorList hx, at::TensorList params) {
  bool needs = input.requires_grad();
  for (const at::TensorList tensors : {hx, params}) {
    for (const Tensor& tensor : tensors) {
      needs = needs || tensor.requires_grad();
    }
  }
  return needs && c10::GradMode::is_enabled();
}

std::tuple<Tensor, Tensor, Tensor> lstm(
    const Tensor& given,
    at::TensorList hx,
    at::TensorList params,
    bool has_biases,
    int64_t num_layers,
    double dropout,
    bool train,
    bool bidirectional,
    bool batch_first) {
  check(genie_usable());
  const int64_t directions = bidirectional ? 2 : 1;
  if (!is_of_one_call(given, hx, params, has_biases, num_layers * directions)) {
    return at::native::lstm(
        given, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first);
  }
  // The node keeps what a backward pass needs where one may come.
  const bool keeps = needs_gradients(given, hx, params);
  const int64_t hidden = hx[0].size(2);
  const size_t weights = has_biases ? 4 : 2;
  Tensor input = (batch_first ? given.transpose(0, 1) : given).contiguous();
  const Tensor h = hx[0].contiguous(), c = hx[1].contiguous();
  std::vector<Tensor> all_h, all_c;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    std::vector<Tensor> outputs;
    for (int64_t direction = 0; direction < directions; ++direction) {
      const int64_t at = layer * directions + direction;
      const size_t first = static_cast<size_t>(at) * weights;
      const Tensor from_input = params[first].contiguous(), from_state = params[first + 1].contiguous();
      // Without biases the kernel wants something in their place, and does not look at it.
      const Tensor& input_bias = has_biases ? params[first + 2] : from_input;
      const Tensor& state_bias = has_biases ? params[first + 3] : from_state;
      auto [output, next_h, next_c, workspace] = at::mkldnn_rnn_layer(
          input, from_input, from_state, has_biases ? input_bias.contiguous() : input_bias.detach(),
          has_biases ? state_bias.contiguous() : state_bias.detach(), h.select(0, at),
          c.select(0, at), /*reverse=*/direction > 0, /*batch_sizes=*/{}, kLstm, hidden, num_layers,
          has_biases, bidirectional, batch_first, keeps);
      outputs.push_back(std::move(output));
      all_h.push_back(std::move(next_h));
      all_c.push_back(std::move(next_c));
    }
    input = directions == 1 ? outputs[0] : at::cat(outputs, -1);
    if (dropout != 0 && train && layer + 1 < num_layers) {
      input = at::dropout(input, dropout, /*train=*/true);
    }
  }
  return {
      batch_first ? input.transpose(0, 1) : input, at::stack(all_h, 0), at::stack(all_c, 0)};
}

}  // namespace

void register_recurrent() {
  // A composition of what is recorded: below and above autograd it is the same.
  static torch::Library above(
      torch::Library::IMPL, "aten", c10::DispatchKey::AutogradPrivateUse1, __FILE__, __LINE__);
  above.impl("lstm.input", TORCH_FN(lstm));
  static torch::Library below(
      torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  below.impl("lstm.input", TORCH_FN(lstm));
}

}  // namespace genie
