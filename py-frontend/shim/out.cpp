#include "out.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/Resize.h>

#include <string>
#include <utility>

namespace genie {
namespace {

bool is_out(const c10::Argument& argument) {
  return argument.kwarg_only() && argument.alias_info() != nullptr &&
      argument.alias_info()->isWrite();
}

size_t count_out(const c10::FunctionSchema& schema) {
  size_t count = 0;
  for (const c10::Argument& argument : schema.arguments()) {
    count += is_out(argument) ? 1 : 0;
  }
  return count;
}

// Whether `made` takes what `written` takes besides its `out=`, and gives as many tensors.
bool is_functional_of(const c10::FunctionSchema& made, const c10::FunctionSchema& written) {
  const size_t out = count_out(written);
  const size_t taken = written.arguments().size() - out;
  if (made.arguments().size() != taken || made.returns().size() != out || made.is_mutable()) {
    return false;
  }
  for (size_t i = 0; i < taken; ++i) {
    const c10::Argument& one = made.arguments()[i];
    const c10::Argument& other = written.arguments()[i];
    if (one.name() != other.name() || *one.type() != *other.type() || is_out(other)) {
      return false;
    }
  }
  for (const c10::Argument& result : made.returns()) {
    if (*result.type() != *c10::TensorType::get()) {
      return false;
    }
  }
  return true;
}

// Whether a kernel gives a tensor that it had to resize its own strides. The others fill rows.
bool lays_out(std::string_view name) {
  return name.rfind("aten::_fft_", 0) != 0 && name != "aten::cholesky";
}

// As `tensor.set_`, of the memory that it has.
void lay_out(const at::Tensor& out, const at::Tensor& like) {
  const auto places = at::detail::computeStorageNbytes(like.sizes(), like.strides(), 1);
  at::native::resize_output(out, {static_cast<int64_t>(places)});
  out.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides());
}

void put(const at::Tensor& out, const at::Tensor& result, bool lays_out) {
  TORCH_CHECK(
      c10::canCast(result.scalar_type(), out.scalar_type()),
      "Expected out tensor to have dtype ",
      result.scalar_type(),
      ", but got ",
      out.scalar_type(),
      " instead");
  if (!out.sizes().equals(result.sizes())) {
    at::native::resize_output(out, result.sizes());
    if (lays_out && !out.strides().equals(result.strides())) {
      lay_out(out, result);
    }
  }
  out.copy_(result);
}

}  // namespace

std::optional<c10::OperatorHandle> find_functional(const c10::OperatorHandle& op) {
  const std::string& overload = op.operator_name().overload_name;
  // `out`, `Scalar_out`, and by the names of the results: `X`, `grad_input`.
  constexpr std::string_view end = "_out";
  const bool ends = overload.size() > end.size() &&
      overload.compare(overload.size() - end.size(), end.size(), end) == 0;
  const std::string named = ends ? overload.substr(0, overload.size() - end.size()) : "";
  auto found = c10::Dispatcher::singleton().findSchema({op.operator_name().name, named});
  if (found.has_value() && is_functional_of(found->schema(), op.schema())) {
    return found;
  }
  return std::nullopt;
}

void fill_out(const Operator& op, torch::jit::Stack& stack) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const size_t count = count_out(op.handle.schema());
  torch::jit::Stack call(stack.end() - op.arguments.size(), stack.end() - count);
  std::vector<at::Tensor> wanted;
  for (size_t i = 0; i < count; ++i) {
    wanted.push_back(stack[stack.size() - count + i].toTensor());
  }
  op.functional->callBoxed(&call);
  TORCH_INTERNAL_ASSERT(call.size() == count);
  const bool keeps = lays_out(op.handle.schema().name());
  for (size_t i = 0; i < count; ++i) {
    put(wanted[i], call[i].toTensor(), keeps);
  }
  torch::jit::drop(stack, op.arguments.size());
  for (at::Tensor& out : wanted) {
    stack.emplace_back(std::move(out));
  }
}

}  // namespace genie
