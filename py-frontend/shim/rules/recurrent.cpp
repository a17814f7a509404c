// Recurrent cells.
#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

// Gates are computed together, `parts` of them beside each other.
void workspace(const Tensor& state, int64_t parts, ResultBuilder& results) {
  results.contiguous(state.scalar_type(), {state.size(0), state.size(1) * parts});
}

Shapes lstm_cell(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& cell = arguments[2].toTensor();
  results.contiguous(cell.scalar_type(), cell.sizes());
  results.contiguous(cell.scalar_type(), cell.sizes());
  workspace(cell, 4, results);
  return Shapes::Known;
}

Shapes lstm_cell_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  if (!is_tensor(arguments[0]) && !is_tensor(arguments[1])) {
    results.none();
    results.none();
    results.none();
    return Shapes::Known;
  }
  const Tensor& cell = arguments[2].toTensor();
  workspace(cell, 4, results);
  results.contiguous(cell.scalar_type(), cell.sizes());
  if (arguments[5].toBool()) {
    results.contiguous(cell.scalar_type(), {cell.size(1) * 4});
  } else {
    results.none();
  }
  return Shapes::Known;
}

Shapes gru_cell(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& hidden = arguments[2].toTensor();
  results.contiguous(hidden.scalar_type(), hidden.sizes());
  workspace(hidden, 5, results);
  return Shapes::Known;
}

Shapes gru_cell_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& gradient = arguments[0].toTensor();
  workspace(gradient, 3, results);
  workspace(gradient, 3, results);
  results.contiguous(gradient.scalar_type(), gradient.sizes());
  for (int i = 0; i < 2; ++i) {
    if (arguments[2].toBool()) {
      results.contiguous(gradient.scalar_type(), {gradient.size(1) * 3});
    } else {
      results.none();
    }
  }
  return Shapes::Known;
}

// A layer of an LSTM in one direction. How much it keeps for its backward pass the node's kernel decides.
Shapes rnn_layer(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  const Tensor& hidden = arguments[5].toTensor();
  if (arguments[15].toBool()) {
    return Shapes::AskNodeOnce;
  }
  results.contiguous(
      input.scalar_type(), {input.size(0), input.size(1), arguments[10].toInt()});
  results.contiguous(hidden.scalar_type(), hidden.sizes());
  results.contiguous(hidden.scalar_type(), hidden.sizes());
  results.none();
  return Shapes::Known;
}

Shapes rnn_layer_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const auto dtype = arguments[0].toTensor().scalar_type();
  for (const size_t at : {0, 1, 2}) {
    results.contiguous(dtype, arguments[at].toTensor().sizes());
  }
  const int64_t gates = 4 * arguments[15].toInt();
  results.contiguous(dtype, {gates});
  results.contiguous(dtype, {gates});
  for (const size_t at : {5, 6}) {
    results.contiguous(dtype, arguments[at].toTensor().sizes());
  }
  return Shapes::Known;
}

}  // namespace

void add_recurrent_rules(RuleTable& table) {
  table.add(&rnn_layer, {"mkldnn_rnn_layer"});
  table.add(&rnn_layer_backward, {"mkldnn_rnn_layer_backward"});
  table.add(&lstm_cell, {"_thnn_fused_lstm_cell"});
  table.add(&lstm_cell_backward, {"_thnn_fused_lstm_cell_backward_impl"});
  table.add(&gru_cell, {"_thnn_fused_gru_cell"});
  table.add(&gru_cell_backward, {"_thnn_fused_gru_cell_backward"});
}

}  // namespace genie
