// Shape rules written by hand: for operators whose C++ shape function is missing or shadowed, and
// for those that PyTorch composes. Each gives what the CPU's kernel gives.
#include <ATen/ExpandUtils.h>
#include <ATen/TensorIterator.h>
#include <ATen/TensorUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/WrapDimUtilsMulti.h>
#include <ATen/native/ConvUtils.h>
#include <ATen/native/TypeProperties.h>
#include <ATen/native/layer_norm.h>
#include <ATen/ops/index_meta_dispatch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>

#include "attention.h"
#include "infer.h"

namespace genie {
namespace {

using at::Tensor;
using Sizes = c10::SmallVector<int64_t, 6>;

bool is_tensor(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined();
}

int64_t wrap(int64_t dim, int64_t ndim) {
  return c10::maybe_wrap_dim(dim, ndim);
}

Sizes int_list(const c10::IValue& value) {
  Sizes sizes;
  for (const c10::IValue& item : value.toListRef()) {
    sizes.push_back(item.toInt());
  }
  return sizes;
}

c10::ScalarType dtype_or(const c10::IValue& value, c10::ScalarType otherwise) {
  return value.isNone() ? otherwise : static_cast<c10::ScalarType>(value.toInt());
}

// Strides in a memory format, as `empty(..., memory_format=)` gives them.
void in_format(
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::MemoryFormat format,
    ResultBuilder& results) {
  if (format == c10::MemoryFormat::ChannelsLast && sizes.size() == 4) {
    results.fresh(dtype, sizes, c10::get_channels_last_strides_2d(sizes));
  } else if (format == c10::MemoryFormat::ChannelsLast3d && sizes.size() == 5) {
    results.fresh(dtype, sizes, c10::get_channels_last_strides_3d(sizes));
  } else {
    results.contiguous(dtype, sizes);
  }
}

// ---- in place -------------------------------------------------------------------------------

// Fills, which no shape can make wrong.
Shapes first_argument(const Operator&, Arguments, ResultBuilder& results) {
  results.alias(0);
  return Shapes::Known;
}

// ---- elementwise ----------------------------------------------------------------------------

Shapes like_first(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.like(arguments[0].toTensor());
  return Shapes::Known;
}

Shapes contiguous_first(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  results.contiguous(self.scalar_type(), self.sizes());
  return Shapes::Known;
}

Shapes like_second(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.like(arguments[1].toTensor());
  return Shapes::Known;
}

Shapes like_real(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  results.like(self, c10::toRealValueType(self.scalar_type()));
  return Shapes::Known;
}

Shapes like_bool(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.like(arguments[0].toTensor(), c10::ScalarType::Bool);
  return Shapes::Known;
}

// What a TensorIterator gives for tensors that are broadcast together.
void broadcast(c10::ScalarType dtype, at::ArrayRef<Tensor> tensors, ResultBuilder& results) {
  at::TensorIteratorConfig config;
  config.check_all_same_dtype(false)
      .allow_cpu_scalars(true)
      .declare_static_dtype_and_device(dtype, c10::Device(c10::kMeta))
      .add_owned_output(Tensor());
  for (const Tensor& tensor : tensors) {
    config.add_owned_const_input(to_meta(tensor));
  }
  const at::TensorIterator iterator = config.build();
  const Tensor& output = iterator.output(0);
  results.fresh(dtype, output.sizes(), output.strides());
}

Shapes logical_binary(const Operator&, Arguments arguments, ResultBuilder& results) {
  broadcast(
      c10::ScalarType::Bool, {arguments[0].toTensor(), arguments[1].toTensor()}, results);
  return Shapes::Known;
}

// Operators of two tensors, or of one and a number, whose result has their promoted dtype.
Shapes promoting_binary(const Operator& op, Arguments arguments, ResultBuilder& results) {
  at::native::ResultTypeState state{};
  state = at::native::update_result_type_state(arguments[0].toTensor(), state);
  if (op.arguments[1].kind == ArgKind::Scalar) {
    state = at::native::update_result_type_state(arguments[1].toScalar(), state);
    results.like(arguments[0].toTensor(), at::native::result_type(state));
    return Shapes::Known;
  }
  state = at::native::update_result_type_state(arguments[1].toTensor(), state);
  broadcast(
      at::native::result_type(state),
      {arguments[0].toTensor(), arguments[1].toTensor()},
      results);
  return Shapes::Known;
}

Shapes where(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& condition = arguments[0].toTensor();
  if (condition.scalar_type() != c10::ScalarType::Bool &&
      condition.scalar_type() != c10::ScalarType::Byte) {
    return Shapes::AskMeta;
  }
  const Tensor& self = arguments[1].toTensor();
  const Tensor& other = arguments[2].toTensor();
  at::native::ResultTypeState state{};
  state = at::native::update_result_type_state(self, state);
  state = at::native::update_result_type_state(other, state);
  broadcast(at::native::result_type(state), {condition, self, other}, results);
  return Shapes::Known;
}

Shapes masked_fill(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  results.contiguous(
      self.scalar_type(), at::infer_size(self.sizes(), arguments[1].toTensor().sizes()));
  return Shapes::Known;
}

Shapes masked_fill_(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  const Tensor& mask = arguments[1].toTensor();
  TORCH_CHECK(
      at::is_expandable_to(mask.sizes(), self.sizes()),
      "The size of the mask ",
      mask.sizes(),
      " must be broadcastable with the size of the tensor ",
      self.sizes());
  results.alias(0);
  return Shapes::Known;
}

Shapes native_dropout(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  results.like(input);
  results.like(input, c10::ScalarType::Bool);
  return Shapes::Known;
}

// ---- copies ---------------------------------------------------------------------------------

Shapes copy_in_format(
    const Tensor& self,
    c10::ScalarType dtype,
    const c10::IValue& format,
    ResultBuilder& results) {
  const auto wanted =
      format.isNone() ? c10::MemoryFormat::Preserve : format.toMemoryFormat();
  if (wanted == c10::MemoryFormat::Preserve) {
    results.like(self, dtype);
  } else {
    in_format(dtype, self.sizes(), wanted, results);
  }
  return Shapes::Known;
}

Shapes clone(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  return copy_in_format(self, self.scalar_type(), arguments[1], results);
}

Shapes to_copy(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  return copy_in_format(self, dtype_or(arguments[1], self.scalar_type()), arguments[6], results);
}

Shapes repeat(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  Sizes sizes = int_list(arguments[1]);
  const size_t extra = sizes.size() - static_cast<size_t>(self.dim());
  if (static_cast<int64_t>(sizes.size()) < self.dim()) {
    return Shapes::AskMeta;
  }
  for (int64_t i = 0; i < self.dim(); ++i) {
    sizes[extra + i] *= self.size(i);
  }
  results.contiguous(self.scalar_type(), sizes);
  return Shapes::Known;
}

Shapes stack(const Operator&, Arguments arguments, ResultBuilder& results) {
  const auto tensors = arguments[0].toListRef();
  if (tensors.empty()) {
    return Shapes::AskMeta;
  }
  const Tensor& first = tensors[0].toTensor();
  for (const c10::IValue& item : tensors) {
    if (!item.toTensor().sizes().equals(first.sizes()) ||
        item.toTensor().scalar_type() != first.scalar_type()) {
      return Shapes::AskMeta;
    }
  }
  Sizes sizes(first.sizes().begin(), first.sizes().end());
  sizes.insert(
      sizes.begin() + wrap(arguments[1].toInt(), first.dim() + 1),
      static_cast<int64_t>(tensors.size()));
  results.contiguous(first.scalar_type(), sizes);
  return Shapes::Known;
}

// The gradient of a slice or a select: zeros of the input's sizes with the gradient in place.
Shapes view_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.contiguous(arguments[0].toTensor().scalar_type(), int_list(arguments[1]));
  return Shapes::Known;
}

// ---- reductions -----------------------------------------------------------------------------

Shapes to_number(const Operator&, Arguments arguments, ResultBuilder& results) {
  results.contiguous(arguments[0].toTensor().scalar_type(), {});
  return Shapes::Known;
}

Shapes sum_all(const Operator&, Arguments arguments, ResultBuilder& results) {
  const c10::ScalarType dtype = arguments[0].toTensor().scalar_type();
  const bool integral = c10::isIntegralType(dtype, /*includeBool=*/true);
  results.contiguous(dtype_or(arguments[1], integral ? c10::ScalarType::Long : dtype), {});
  return Shapes::Known;
}

Shapes mean_all(const Operator&, Arguments arguments, ResultBuilder& results) {
  const c10::ScalarType dtype = dtype_or(arguments[1], arguments[0].toTensor().scalar_type());
  if (c10::isIntegralType(dtype, /*includeBool=*/true)) {
    return Shapes::AskMeta;
  }
  results.contiguous(dtype, {});
  return Shapes::Known;
}

// Reductions over the dimensions in argument 1; `keepdim` is the last argument.
Shapes reduce(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  if (!self.is_contiguous() || arguments[1].isNone() ||
      c10::isIntegralType(self.scalar_type(), /*includeBool=*/true)) {
    return Shapes::AskMeta;  // whose strides follow the input's
  }
  const bool keep = arguments.back().toBool();
  const Sizes dims = int_list(arguments[1]);
  const auto reduced = at::dim_list_to_bitset(c10::IntArrayRef(dims), self.dim());
  Sizes sizes;
  for (int64_t i = 0; i < self.dim(); ++i) {
    if (!dims.empty() && !reduced[i]) {
      sizes.push_back(self.size(i));
    } else if (keep) {
      sizes.push_back(1);
    }
  }
  results.contiguous(c10::toRealValueType(self.scalar_type()), sizes);
  return Shapes::Known;
}

Shapes extremum_all(const Operator& op, Arguments arguments, ResultBuilder& results) {
  if (arguments[0].toTensor().numel() == 0) {
    return Shapes::AskMeta;
  }
  return to_number(op, arguments, results);
}

// ---- indices --------------------------------------------------------------------------------

bool is_mask(const c10::IValue& index) {
  return is_tensor(index) &&
      (index.toTensor().scalar_type() == c10::ScalarType::Bool ||
       index.toTensor().scalar_type() == c10::ScalarType::Byte);
}

bool any_mask(const c10::IValue& indices) {
  for (const c10::IValue& index : indices.toListRef()) {
    if (is_mask(index)) {
      return true;
    }
  }
  return false;
}

// Shapes that differ between kinds of devices.
Shapes ask_node(const Operator&, Arguments, ResultBuilder&) {
  return Shapes::AskNode;
}

// Masks have as many results as true elements, which only the node can count.
Shapes index(const Operator&, Arguments arguments, ResultBuilder&) {
  return any_mask(arguments[1]) ? Shapes::AskNode : Shapes::AskMeta;
}

// Without masks, the values must fit what the indices select.
void check_index_put(Arguments arguments) {
  if (any_mask(arguments[1])) {
    return;
  }
  c10::List<std::optional<Tensor>> indices;
  for (const c10::IValue& index : arguments[1].toListRef()) {
    indices.push_back(is_tensor(index) ? std::optional<Tensor>(to_meta(index.toTensor())) : std::nullopt);
  }
  const Tensor selected = at::meta::index(to_meta(arguments[0].toTensor()), indices);
  const Tensor& values = arguments[2].toTensor();
  TORCH_CHECK(
      at::is_expandable_to(values.sizes(), selected.sizes()),
      "shape mismatch: value tensor of shape ",
      values.sizes(),
      " cannot be broadcast to indexing result of shape ",
      selected.sizes());
}

Shapes index_put_(const Operator&, Arguments arguments, ResultBuilder& results) {
  check_index_put(arguments);
  results.alias(0);
  return Shapes::Known;
}

Shapes index_put(const Operator& op, Arguments arguments, ResultBuilder& results) {
  check_index_put(arguments);
  return like_first(op, arguments, results);
}

Shapes index_select(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  const Tensor& index = arguments[2].toTensor();
  if (self.dim() == 0 || index.dim() > 1 ||
      !(index.scalar_type() == c10::ScalarType::Long ||
        index.scalar_type() == c10::ScalarType::Int)) {
    return Shapes::AskMeta;
  }
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  sizes[wrap(arguments[1].toInt(), self.dim())] = index.numel();
  results.contiguous(self.scalar_type(), sizes);
  return Shapes::Known;
}

Shapes embedding(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& weight = arguments[0].toTensor();
  const Tensor& indices = arguments[1].toTensor();
  TORCH_CHECK(weight.dim() == 2, "'weight' must be 2-D");
  at::checkScalarTypes(
      "embedding", at::TensorArg(indices, "indices", 1), {at::kLong, at::kInt});
  Sizes sizes(indices.sizes().begin(), indices.sizes().end());
  sizes.push_back(weight.size(1));
  results.contiguous(weight.scalar_type(), sizes);
  return Shapes::Known;
}

Shapes embedding_dense_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& gradient = arguments[0].toTensor();
  results.contiguous(gradient.scalar_type(), {arguments[2].toInt(), gradient.size(-1)});
  return Shapes::Known;
}

Shapes repeat_interleave(const Operator&, Arguments arguments, ResultBuilder& results) {
  if (arguments[1].isNone()) {
    return Shapes::AskNode;
  }
  results.contiguous(arguments[0].toTensor().scalar_type(), {arguments[1].toInt()});
  return Shapes::Known;
}

Shapes multinomial(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  if (self.dim() != 1 && self.dim() != 2) {
    return Shapes::AskMeta;
  }
  Sizes sizes(self.sizes().begin(), self.sizes().end() - 1);
  sizes.push_back(arguments[1].toInt());
  results.contiguous(c10::ScalarType::Long, sizes);
  return Shapes::Known;
}

// ---- normalisation --------------------------------------------------------------------------

// Statistics are kept in float beside parameters in float.
c10::ScalarType statistics_dtype(const Tensor& input, const c10::IValue& weight) {
  return is_tensor(weight) ? weight.toTensor().scalar_type() : input.scalar_type();
}

Shapes native_layer_norm(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  const Sizes normalized = int_list(arguments[1]);
  const auto parameter = [&](size_t i) {
    return is_tensor(arguments[i]) ? arguments[i].toTensor() : Tensor();
  };
  at::native::_check_layer_norm_inputs(input, normalized, parameter(2), parameter(3));
  const int64_t outer = input.dim() - static_cast<int64_t>(normalized.size());
  results.contiguous(input.scalar_type(), input.sizes());
  Sizes statistics(input.sizes().begin(), input.sizes().end());
  std::fill(statistics.begin() + outer, statistics.end(), 1);
  const c10::ScalarType dtype = statistics_dtype(input, arguments[2]);
  results.contiguous(dtype, statistics);
  results.contiguous(dtype, statistics);
  return Shapes::Known;
}

// Gradients of input, weight and bias, each where the mask asks for it.
Shapes norm_backward(
    const Tensor& input,
    const c10::IValue& weight,
    c10::IntArrayRef parameter,
    const c10::IValue& mask,
    bool contiguous,
    ResultBuilder& results) {
  const auto wanted = mask.toListRef();
  const c10::ScalarType dtype =
      is_tensor(weight) ? weight.toTensor().scalar_type() : input.scalar_type();
  if (!wanted[0].toBool()) {
    results.none();
  } else if (contiguous) {
    results.contiguous(input.scalar_type(), input.sizes());
  } else {
    results.like(input);
  }
  for (size_t i = 1; i < 3; ++i) {
    if (wanted[i].toBool()) {
      results.contiguous(dtype, parameter);
    } else {
      results.none();
    }
  }
  return Shapes::Known;
}

Shapes native_layer_norm_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  return norm_backward(
      arguments[1].toTensor(),
      arguments[5],
      int_list(arguments[2]),
      arguments[7],
      /*contiguous=*/true,
      results);
}

Shapes native_batch_norm(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  if (input.dim() < 2) {
    return Shapes::AskMeta;
  }
  in_format(input.scalar_type(), input.sizes(), input.suggest_memory_format(), results);
  // Evaluation saves no statistics.
  const int64_t channels = arguments[5].toBool() ? input.size(1) : 0;
  const c10::ScalarType dtype = statistics_dtype(input, arguments[1]);
  results.contiguous(dtype, {channels});
  results.contiguous(dtype, {channels});
  return Shapes::Known;
}

Shapes native_batch_norm_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[1].toTensor();
  return norm_backward(
      input, arguments[2], {input.size(1)}, arguments[9], /*contiguous=*/false, results);
}

Shapes native_group_norm(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  if (input.dim() < 2) {
    return Shapes::AskMeta;
  }
  in_format(input.scalar_type(), input.sizes(), input.suggest_memory_format(), results);
  const c10::ScalarType dtype = statistics_dtype(input, arguments[1]);
  const int64_t statistics[] = {arguments[3].toInt(), arguments[6].toInt()};
  results.contiguous(dtype, statistics);
  results.contiguous(dtype, statistics);
  return Shapes::Known;
}

// ---- convolution ----------------------------------------------------------------------------

// A list of one number per spatial dimension, which may be given as one number for all.
Sizes per_dimension(const c10::IValue& value, int64_t dimensions) {
  Sizes sizes = int_list(value);
  if (sizes.size() == 1) {
    sizes.resize(static_cast<size_t>(dimensions), sizes[0]);
  }
  return sizes;
}

Shapes convolution(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  const Tensor& weight = arguments[1].toTensor();
  const int64_t spatial = weight.dim() - 2;
  const int64_t groups = arguments[8].toInt();
  if (spatial < 1 || input.dim() != weight.dim() || groups < 1) {
    return Shapes::AskMeta;  // which says what is wrong
  }
  const bool transposed = arguments[6].toBool();
  const Sizes stride = per_dimension(arguments[3], spatial);
  const Sizes padding = per_dimension(arguments[4], spatial);
  const Sizes dilation = per_dimension(arguments[5], spatial);
  const Sizes output_padding = per_dimension(arguments[7], spatial);
  const int64_t channels = transposed ? weight.size(0) : weight.size(1) * groups;
  TORCH_CHECK(
      input.size(1) == channels,
      "Given ",
      transposed ? "transposed=1" : "groups=",
      transposed ? std::string() : std::to_string(groups),
      ", weight of size ",
      weight.sizes(),
      ", expected input",
      input.sizes(),
      " to have ",
      channels,
      " channels, but got ",
      input.size(1),
      " channels instead");
  Sizes sizes;
  sizes.push_back(input.size(0));
  sizes.push_back(transposed ? weight.size(1) * groups : weight.size(0));
  for (int64_t i = 0; i < spatial; ++i) {
    const int64_t kernel = dilation[i] * (weight.size(i + 2) - 1) + 1;
    const int64_t size = input.size(i + 2);
    if (stride[i] <= 0 || (!transposed && size + 2 * padding[i] < kernel)) {
      return Shapes::AskMeta;
    }
    sizes.push_back(
        transposed ? (size - 1) * stride[i] - 2 * padding[i] + kernel + output_padding[i]
                   : (size + 2 * padding[i] - kernel) / stride[i] + 1);
  }
  in_format(
      input.scalar_type(),
      sizes,
      at::native::_determine_backend_memory_format(
          to_meta(input), to_meta(weight), at::native::ConvBackend::Mkldnn),
      results);
  return Shapes::Known;
}

Shapes convolution_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const auto wanted = arguments[10].toListRef();
  const Tensor& input = arguments[1].toTensor();
  const Tensor& weight = arguments[2].toTensor();
  for (size_t i = 0; i < 3; ++i) {
    if (!wanted[i].toBool()) {
      results.none();
    } else if (i == 0) {
      in_format(input.scalar_type(), input.sizes(), input.suggest_memory_format(), results);
    } else if (i == 1) {
      in_format(weight.scalar_type(), weight.sizes(), weight.suggest_memory_format(), results);
    } else {
      results.contiguous(weight.scalar_type(), int_list(arguments[3]));
    }
  }
  return Shapes::Known;
}

Shapes adaptive_avg_pool2d(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  const Sizes output = int_list(arguments[1]);
  if ((self.dim() != 3 && self.dim() != 4) || output.size() != 2) {
    return Shapes::AskMeta;
  }
  Sizes sizes(self.sizes().begin(), self.sizes().end() - 2);
  sizes.append(output.begin(), output.end());
  in_format(self.scalar_type(), sizes, self.suggest_memory_format(), results);
  return Shapes::Known;
}

// ---- recurrent cells ------------------------------------------------------------------------

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

// ---- factories ------------------------------------------------------------------------------

c10::ScalarType factory_dtype(const Operator& op, Arguments arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (op.arguments[i].kind == ArgKind::Enum) {
      return static_cast<c10::ScalarType>(arguments[i].toInt());  // adapt.cpp has chosen it
    }
  }
  TORCH_INTERNAL_ASSERT(false, "a factory without a dtype");
}

Shapes filled(const Operator& op, Arguments arguments, ResultBuilder& results) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (op.arguments[i].kind == ArgKind::IntList) {
      const Sizes sizes = int_list(arguments[i]);
      for (const int64_t size : sizes) {
        TORCH_CHECK(
            size >= 0,
            "Trying to create tensor with negative dimension ",
            size,
            ": ",
            c10::IntArrayRef(sizes));
      }
      results.contiguous(factory_dtype(op, arguments), sizes);
      return Shapes::Known;
    }
  }
  return Shapes::AskMeta;
}

Shapes scalar_tensor(const Operator& op, Arguments arguments, ResultBuilder& results) {
  results.contiguous(factory_dtype(op, arguments), {});
  return Shapes::Known;
}

Shapes arange(const Operator& op, Arguments arguments, ResultBuilder& results) {
  const bool has_start = op.arguments[1].kind == ArgKind::Scalar;
  const bool has_step = op.arguments[2].kind == ArgKind::Scalar;
  const c10::Scalar start = has_start ? arguments[0].toScalar() : c10::Scalar(0);
  const c10::Scalar end = arguments[has_start ? 1 : 0].toScalar();
  const c10::Scalar step = has_step ? arguments[2].toScalar() : c10::Scalar(1);
  if (start.isComplex() || end.isComplex() || step.isComplex()) {
    return Shapes::AskMeta;
  }
  const c10::ScalarType dtype = factory_dtype(op, arguments);
  const double from = start.toDouble();
  const double to = end.toDouble();
  const double by = step.toDouble();
  TORCH_CHECK(by != 0, "step must be nonzero");
  TORCH_CHECK(std::isfinite(from) && std::isfinite(to), "unsupported range: ", from, " -> ", to);
  TORCH_CHECK(
      (by > 0 && to >= from) || (by < 0 && to <= from),
      "upper bound and lower bound inconsistent with step sign");
  double size = 0;
  if (dtype == c10::ScalarType::Long) {
    // Exactly, as large integers would lose their low digits as doubles.
    const int64_t a = start.to<int64_t>();
    const int64_t b = end.to<int64_t>();
    const int64_t s = step.to<int64_t>();
    TORCH_CHECK(s != 0, "step must be nonzero");
    size = std::ceil(static_cast<double>(b - a) / static_cast<double>(s));
  } else {
    size = std::ceil((to - from) / by);
  }
  TORCH_CHECK(
      size >= 0 && size <= static_cast<double>(std::numeric_limits<int64_t>::max()),
      "invalid size, possible overflow?");
  results.contiguous(dtype, {static_cast<int64_t>(size)});
  return Shapes::Known;
}

Shapes linspace(const Operator& op, Arguments arguments, ResultBuilder& results) {
  const int64_t steps = arguments[2].toInt();
  TORCH_CHECK(steps >= 0, "number of steps must be non-negative");
  results.contiguous(factory_dtype(op, arguments), {steps});
  return Shapes::Known;
}

Shapes eye(const Operator& op, Arguments arguments, ResultBuilder& results) {
  const int64_t rows = arguments[0].toInt();
  const int64_t columns = op.arguments[1].kind == ArgKind::Int ? arguments[1].toInt() : rows;
  TORCH_CHECK(rows >= 0, "n must be greater or equal to 0, got ", rows);
  TORCH_CHECK(columns >= 0, "m must be greater or equal to 0, got ", columns);
  results.contiguous(factory_dtype(op, arguments), {rows, columns});
  return Shapes::Known;
}

Shapes randperm(const Operator& op, Arguments arguments, ResultBuilder& results) {
  TORCH_CHECK(arguments[0].toInt() >= 0, "n must be non-negative, got", arguments[0].toInt());
  results.contiguous(factory_dtype(op, arguments), {arguments[0].toInt()});
  return Shapes::Known;
}

using Table = std::unordered_map<std::string, ShapeRule>;

Table make_table() {
  Table table;
  const auto add = [&table](ShapeRule rule, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      table.emplace(name, rule);
    }
  };
  add(&first_argument,
      {"zero_", "fill_.Scalar", "fill_.Tensor", "copy_", "normal_", "uniform_", "bernoulli_.float",
       "exponential_", "random_", "random_.to", "random_.from", "log_normal_", "cauchy_",
       "geometric_", "relu_", "hardtanh_", "hardswish_", "abs_", "logical_not_"});
  add(&like_first,
      {"relu", "hardtanh", "hardswish", "bernoulli", "bernoulli.p", "flip"});
  add(&contiguous_first, {"roll", "_transformer_encoder_layer_fwd"});
  add(&like_real, {"abs"});
  add(&like_bool, {"logical_not", "isnan", "isinf"});
  add(&like_second, {"_adaptive_avg_pool2d_backward"});
  add(&logical_binary, {"logical_and", "logical_or", "logical_xor"});
  add(&promoting_binary, {"floor_divide", "rsub.Scalar", "rsub.Tensor"});
  add(&where, {"where.self"});
  add(&masked_fill, {"masked_fill.Scalar", "masked_fill.Tensor"});
  add(&masked_fill_, {"masked_fill_.Scalar", "masked_fill_.Tensor"});
  add(&native_dropout, {"native_dropout"});
  add(&clone, {"clone"});
  add(&to_copy, {"_to_copy"});
  add(&repeat, {"repeat"});
  add(&stack, {"stack"});
  add(&view_backward, {"slice_backward", "select_backward"});
  add(&to_number, {"dot"});
  add(&sum_all, {"sum"});
  add(&mean_all, {"mean"});
  add(&reduce, {"var.correction", "std.correction", "logsumexp"});
  add(&extremum_all, {"max", "min"});
  add(&ask_node, {"_embedding_bag", "_embedding_bag_forward_only"});
  add(&index, {"index.Tensor", "_unsafe_index.Tensor"});
  add(&index_put_, {"index_put_", "_index_put_impl_"});
  add(&index_put, {"index_put", "_unsafe_index_put"});
  add(&index_select, {"index_select"});
  add(&embedding, {"embedding"});
  add(&embedding_dense_backward, {"embedding_dense_backward"});
  add(&repeat_interleave, {"repeat_interleave.Tensor"});
  add(&multinomial, {"multinomial"});
  add(&native_layer_norm, {"native_layer_norm"});
  add(&native_layer_norm_backward, {"native_layer_norm_backward"});
  add(&native_batch_norm, {"native_batch_norm"});
  add(&native_batch_norm_backward, {"native_batch_norm_backward"});
  add(&native_group_norm, {"native_group_norm"});
  add(&convolution, {"convolution"});
  add(&convolution_backward, {"convolution_backward"});
  add(&adaptive_avg_pool2d, {"_adaptive_avg_pool2d"});
  add(&attention_rule, {"_scaled_dot_product_fused_attention_overrideable"});
  add(&attention_backward_rule, {"_scaled_dot_product_fused_attention_overrideable_backward"});
  add(&lstm_cell, {"_thnn_fused_lstm_cell"});
  add(&lstm_cell_backward, {"_thnn_fused_lstm_cell_backward_impl"});
  add(&gru_cell, {"_thnn_fused_gru_cell"});
  add(&gru_cell_backward, {"_thnn_fused_gru_cell_backward"});
  add(&filled,
      {"zeros", "ones", "full", "rand", "rand.generator", "randn", "randn.generator", "randint",
       "randint.generator", "randint.low", "randint.low_generator"});
  add(&scalar_tensor, {"scalar_tensor"});
  add(&arange, {"arange", "arange.start", "arange.start_step"});
  add(&linspace, {"linspace", "logspace"});
  add(&eye, {"eye", "eye.m"});
  add(&randperm, {"randperm", "randperm.generator"});
  return table;
}

}  // namespace

ShapeRule find_rule(const c10::OperatorName& name) {
  static const Table table = make_table();
  std::string key = name.name.substr(std::string_view("aten::").size());
  if (!name.overload_name.empty()) {
    key += "." + name.overload_name;
  }
  const auto found = table.find(key);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace genie
