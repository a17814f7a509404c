// PyTorch's C++ shape functions of the operators that models use most, called directly: once
// torch._meta_registrations is imported (transformers imports it), the dispatcher has Python ones
// in front of them, which take 50 to 500 microseconds.
#include <ATen/MetaFunctions.h>
#include <ATen/Operators.h>
#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <unordered_map>

#include "infer.h"

namespace genie {
namespace {

using Table = std::unordered_map<std::string, c10::KernelFunction>;

// `Function` has overloads: the operator's own signature picks one.
template <class Op>
using Signature = typename c10::fn_remove_symint<typename Op::schema>::type;

template <class Op>
void add(Table& table, Signature<Op>* function) {
  table.emplace(
      std::string(Op::name) + "." + Op::overload_name,
      c10::KernelFunction::makeFromUnboxedRuntimeFunction(function));
}

// An operator without and with an in-place form.
#define GENIE_META(op, function) add<at::_ops::op>(table, &at::meta::function);
#define GENIE_META_INPLACE(name)  \
  GENIE_META(name, name)          \
  GENIE_META(name##_, name##_)
#define GENIE_META_OVERLOAD(name, overload) GENIE_META(name##_##overload, name)
#define GENIE_META_OVERLOAD_INPLACE(name, overload) \
  GENIE_META(name##_##overload, name)               \
  GENIE_META(name##__##overload, name##_)

Table make_table() {
  Table table;
  // Elementwise, of one tensor.
  GENIE_META_INPLACE(acos)
  GENIE_META_INPLACE(asin)
  GENIE_META_INPLACE(atan)
  GENIE_META_INPLACE(ceil)
  GENIE_META_INPLACE(cos)
  GENIE_META_INPLACE(erf)
  GENIE_META_INPLACE(exp)
  GENIE_META_INPLACE(expm1)
  GENIE_META_INPLACE(floor)
  GENIE_META_INPLACE(gelu)
  GENIE_META_INPLACE(elu)
  GENIE_META_INPLACE(hardsigmoid)
  GENIE_META_INPLACE(leaky_relu)
  GENIE_META_INPLACE(log)
  GENIE_META_INPLACE(log1p)
  GENIE_META_INPLACE(log2)
  GENIE_META_INPLACE(mish)
  GENIE_META_INPLACE(neg)
  GENIE_META_INPLACE(reciprocal)
  GENIE_META_INPLACE(round)
  GENIE_META_INPLACE(rsqrt)
  GENIE_META_INPLACE(sigmoid)
  GENIE_META_INPLACE(sign)
  GENIE_META_INPLACE(silu)
  GENIE_META_INPLACE(sin)
  GENIE_META_INPLACE(sqrt)
  GENIE_META_INPLACE(tan)
  GENIE_META_INPLACE(tanh)
  GENIE_META_INPLACE(trunc)
  GENIE_META_INPLACE(bitwise_not)
  GENIE_META(softplus, softplus)
  GENIE_META(isposinf, isposinf)
  GENIE_META(isneginf, isneginf)
  GENIE_META_INPLACE(clamp)
  GENIE_META_INPLACE(clamp_min)
  GENIE_META_INPLACE(clamp_max)
  GENIE_META_OVERLOAD_INPLACE(clamp, Tensor)
  GENIE_META_INPLACE(tril)
  GENIE_META_INPLACE(triu)

  // Elementwise, of several.
  GENIE_META_OVERLOAD_INPLACE(add, Tensor)
  GENIE_META_OVERLOAD_INPLACE(sub, Tensor)
  GENIE_META_OVERLOAD_INPLACE(mul, Tensor)
  GENIE_META_OVERLOAD_INPLACE(div, Tensor)
  GENIE_META_OVERLOAD_INPLACE(div, Tensor_mode)
  GENIE_META_OVERLOAD_INPLACE(remainder, Tensor)
  GENIE_META_OVERLOAD_INPLACE(fmod, Tensor)
  GENIE_META_INPLACE(addcmul)
  GENIE_META_INPLACE(addcdiv)
  GENIE_META_OVERLOAD_INPLACE(lerp, Scalar)
  GENIE_META_OVERLOAD_INPLACE(lerp, Tensor)
  GENIE_META_INPLACE(atan2)
  GENIE_META(maximum, maximum)
  GENIE_META(minimum, minimum)
  GENIE_META_OVERLOAD(pow, Tensor_Tensor)
  GENIE_META_OVERLOAD(pow, Tensor_Scalar)
  GENIE_META_OVERLOAD(pow, Scalar)
  GENIE_META(pow__Scalar, pow_)
  GENIE_META(pow__Tensor, pow_)
  GENIE_META_OVERLOAD_INPLACE(eq, Tensor)
  GENIE_META_OVERLOAD_INPLACE(ne, Tensor)
  GENIE_META_OVERLOAD_INPLACE(lt, Tensor)
  GENIE_META_OVERLOAD_INPLACE(le, Tensor)
  GENIE_META_OVERLOAD_INPLACE(gt, Tensor)
  GENIE_META_OVERLOAD_INPLACE(ge, Tensor)
  GENIE_META_OVERLOAD_INPLACE(eq, Scalar)
  GENIE_META_OVERLOAD_INPLACE(ne, Scalar)
  GENIE_META_OVERLOAD_INPLACE(lt, Scalar)
  GENIE_META_OVERLOAD_INPLACE(le, Scalar)
  GENIE_META_OVERLOAD_INPLACE(gt, Scalar)
  GENIE_META_OVERLOAD_INPLACE(ge, Scalar)
  GENIE_META_OVERLOAD_INPLACE(bitwise_and, Tensor)
  GENIE_META_OVERLOAD_INPLACE(bitwise_or, Tensor)
  GENIE_META_OVERLOAD_INPLACE(bitwise_xor, Tensor)

  // Products.
  GENIE_META(mm, mm)
  GENIE_META(bmm, bmm)
  GENIE_META_INPLACE(addmm)
  GENIE_META_INPLACE(baddbmm)

  // Reductions and scans.
  GENIE_META_OVERLOAD(sum, dim_IntList)
  GENIE_META_OVERLOAD(mean, dim)
  GENIE_META(amax, amax)
  GENIE_META(amin, amin)
  GENIE_META(argmax, argmax)
  GENIE_META(argmin, argmin)
  GENIE_META_OVERLOAD(max, dim)
  GENIE_META_OVERLOAD(min, dim)
  GENIE_META(all, all)
  GENIE_META(any, any)
  GENIE_META_OVERLOAD(all, dim)
  GENIE_META_OVERLOAD(any, dim)
  GENIE_META_INPLACE(cumsum)
  GENIE_META_INPLACE(cumprod)
  GENIE_META(topk, topk)
  GENIE_META_OVERLOAD(sort, stable)
  GENIE_META(linalg_vector_norm, linalg_vector_norm)

  // Shapes and indices.
  GENIE_META(cat, cat)
  GENIE_META(gather, gather)
  GENIE_META_OVERLOAD_INPLACE(scatter, src)
  GENIE_META_OVERLOAD_INPLACE(scatter, value)
  GENIE_META_INPLACE(scatter_add)
  GENIE_META_INPLACE(index_add)
  GENIE_META_OVERLOAD(index, Tensor)

  // Layers and losses, and their gradients.
  GENIE_META(_softmax, _softmax)
  GENIE_META(_log_softmax, _log_softmax)
  GENIE_META(_softmax_backward_data, _softmax_backward_data)
  GENIE_META(_log_softmax_backward_data, _log_softmax_backward_data)
  GENIE_META(nll_loss_forward, nll_loss_forward)
  GENIE_META(nll_loss_backward, nll_loss_backward)
  GENIE_META(mse_loss, mse_loss)
  GENIE_META(gelu_backward, gelu_backward)
  GENIE_META(silu_backward, silu_backward)
  GENIE_META(sigmoid_backward, sigmoid_backward)
  GENIE_META(tanh_backward, tanh_backward)
  GENIE_META(threshold_backward, threshold_backward)
  GENIE_META(leaky_relu_backward, leaky_relu_backward)
  GENIE_META(elu_backward, elu_backward)
  GENIE_META(max_pool2d_with_indices, max_pool2d_with_indices)
  GENIE_META(max_pool2d_with_indices_backward, max_pool2d_with_indices_backward)
  GENIE_META(avg_pool2d, avg_pool2d)
  GENIE_META(avg_pool2d_backward, avg_pool2d_backward)
  return table;
}

}  // namespace

std::optional<c10::KernelFunction> find_meta(const c10::OperatorName& name) {
  static const Table table = make_table();
  const auto found = table.find(name.name + "." + name.overload_name);
  return found == table.end() ? std::nullopt : std::make_optional(found->second);
}

}  // namespace genie
