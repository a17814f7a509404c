#include "invoke.h"

#include "checks.h"
#include "threads.h"

namespace genie {

void invoke(const Operator& op, const GenieCall& call, torch::jit::Stack& stack) {
  check_arguments(*op.checks, stack);
  lay_out(*op.checks, stack);
  choose_threads(estimate(op.work, stack, call));
  torch::jit::Stack keep;
  if (op.returns_references) {
    keep = stack;
  }
  op.handle.callBoxed(stack);
  TORCH_CHECK(
      stack.size() == op.returns.size(), op.name, " left ", stack.size(), " results");
  check_results(stack, keep);
}

} // namespace genie
