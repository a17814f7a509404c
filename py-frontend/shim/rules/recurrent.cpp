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

}  // namespace

void add_recurrent_rules(RuleTable& table) {
  table.add(&lstm_cell, {"_thnn_fused_lstm_cell"});
  table.add(&lstm_cell_backward, {"_thnn_fused_lstm_cell_backward_impl"});
  table.add(&gru_cell, {"_thnn_fused_gru_cell"});
  table.add(&gru_cell_backward, {"_thnn_fused_gru_cell_backward"});
}

}  // namespace genie
