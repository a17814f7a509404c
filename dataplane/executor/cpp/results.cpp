#include "results.h"

#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "predicted.h"
#include "view.h"

namespace genie {
namespace {

static_assert(out::COUNT == 4, "a result tag is new: say here what it takes");

bool same_strides(at::IntArrayRef sizes, at::IntArrayRef left, at::IntArrayRef right) {
  for (size_t i = 0; i < sizes.size(); i++) {
    if (sizes[i] > 1 && left[i] != right[i]) {
      return false;
    }
  }
  return true;
}

// True if the tensor owns its storage alone, from the storage's first byte.
bool owns_storage(const at::Tensor& tensor) {
  return tensor.has_storage() && tensor.storage().use_count() == 1 &&
      tensor.storage_offset() == 0 && tensor.device() == device() && !tensor.is_conj() &&
      !tensor.is_neg() && !tensor._is_zerotensor();
}

void check_layout(const Operator& op, const at::Tensor& tensor) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      tensor.layout() == c10::kStrided,
      op.name,
      ": a result of layout ",
      tensor.layout(),
      " can't be kept on a remote accelerator");
}

// Copies a tensor to one of its own storage with these strides.
at::Tensor copied(const at::Tensor& tensor, at::IntArrayRef sizes, at::IntArrayRef strides) {
  at::Tensor copy = at::empty_strided(sizes, strides, tensor.options().device(device()));
  copy.copy_(tensor);
  return copy;
}

std::vector<int64_t> row_major(at::IntArrayRef sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
  }
  return strides;
}

// Elements of their own places, and few places between them: a program that goes by its strides finds them.
bool is_nearly_dense(const at::Tensor& tensor) {
  constexpr int64_t PLACES_PER_ELEMENT = 4;
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t i = 0; i < tensor.dim(); i++) {
    if (tensor.size(i) > 1) {
      dims.emplace_back(tensor.stride(i), tensor.size(i));
    }
  }
  std::sort(dims.begin(), dims.end());
  int64_t places = 1;
  for (const auto& [stride, size] : dims) {
    if (stride < places) {
      return false;
    }
    places = stride * (size - 1) + places;
  }
  return places <= PLACES_PER_ELEMENT * tensor.numel();
}

void take_predicted(
    const Operator& op,
    Predicted& predicted,
    const at::Tensor& result,
    std::vector<GenieStorage*>& fresh) {
  const Item item = predicted.next();
  switch (item.tag) {
    case out::NONE:
    case out::ALIAS:
      return;
    case out::FRESH: {
      const auto dtype = checked_dtype(item.fields[0]);
      const at::IntArrayRef sizes(item.params, item.n);
      const at::IntArrayRef strides(item.params + item.n, item.n);
      if (!result.defined()) {
        // Not computed (the gradient of nothing): it counts as zero.
        fresh.push_back(take_storage(at::zeros(sizes, at::device(device()).dtype(dtype))));
        return;
      }
      check_layout(op, result);
      TORCH_CHECK(
          result.scalar_type() == dtype && result.sizes() == sizes,
          op.name,
          " gave ",
          result.scalar_type(),
          " ",
          result.sizes(),
          ", but ",
          dtype,
          " ",
          sizes,
          " was predicted");
      const bool as_predicted = owns_storage(result) &&
          (result.numel() == 0 || same_strides(sizes, result.strides(), strides));
      fresh.push_back(take_storage(as_predicted ? result : copied(result, sizes, strides)));
      return;
    }
    default:
      throw ProtocolError("an unexpected result tag");
  }
}

// Items of a result skeleton at its top level.
size_t top_level_items(const GenieCall& call) {
  size_t count = 0;
  size_t nested = 0;
  for (Predicted predicted(call); !predicted.empty();) {
    const Item item = predicted.next();
    if (nested > 0) {
      nested--;
    } else {
      count++;
    }
    if (item.tag == out::LIST) {
      nested = item.n;
    }
  }
  return count;
}

int64_t bits(double value) {
  int64_t raw;
  std::memcpy(&raw, &value, sizeof raw);
  return raw;
}

void describe_tensor(
    const Operator& op,
    const at::Tensor& result,
    const std::vector<c10::TensorImpl*>& arguments,
    uint64_t reserved,
    Described& to) {
  if (!result.defined()) {
    to.out.push_back(out::NONE);
    return;
  }
  for (size_t i = 0; i < arguments.size() && i <= UINT8_MAX; i++) {
    if (arguments[i] == result.unsafeGetTensorImpl()) {
      to.out.push_back(out::ALIAS);
      to.out.push_back(static_cast<uint8_t>(i));
      return;
    }
  }
  check_layout(op, result);
  TORCH_CHECK(
      to.fresh.size() < reserved,
      op.name,
      " gave more than the ",
      reserved,
      " results that were reserved for it");
  const bool whole = owns_storage(result) && result.is_non_overlapping_and_dense();
  const at::Tensor own = whole
      ? result
      : copied(
            result,
            result.sizes(),
            is_nearly_dense(result) ? result.strides().vec() : row_major(result.sizes()));
  checked_dtype(static_cast<uint8_t>(own.scalar_type()));
  to.out.push_back(out::FRESH);
  to.out.push_back(static_cast<uint8_t>(own.scalar_type()));
  to.out.push_back(static_cast<uint8_t>(own.dim()));
  to.out_params.insert(to.out_params.end(), own.sizes().begin(), own.sizes().end());
  to.out_params.insert(to.out_params.end(), own.strides().begin(), own.strides().end());
  to.fresh.push_back(take_storage(own));
}

void describe_value(const Operator& op, const c10::IValue& value, Described& to) {
  if (value.isInt()) {
    to.value.push_back(tag::SCALAR_INT);
    to.value_data.push_back(value.toInt());
  } else if (value.isDouble()) {
    to.value.push_back(tag::SCALAR_DOUBLE);
    to.value_data.push_back(bits(value.toDouble()));
  } else if (value.isBool()) {
    to.value.push_back(value.toBool() ? tag::SCALAR_TRUE : tag::SCALAR_FALSE);
  } else if (value.isComplexDouble()) {
    to.value.push_back(tag::SCALAR_COMPLEX);
    to.value_data.push_back(bits(value.toComplexDouble().real()));
    to.value_data.push_back(bits(value.toComplexDouble().imag()));
  } else if (value.isNone()) {
    to.value.push_back(tag::NONE);
  } else {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false, op.name, ": a result of type ", value.tagKind(), " can't be sent");
  }
}

} // namespace

void bind_predicted(
    const Operator& op,
    const GenieCall& call,
    const torch::jit::Stack& results,
    std::vector<GenieStorage*>& fresh) {
  // Results that are not tensors have an item NONE, or none at all.
  const bool skip_values =
      !op.only_tensor_returns && top_level_items(call) != op.returns.size();
  Predicted predicted(call);
  for (size_t i = 0; i < results.size(); i++) {
    const c10::IValue& result = results[i];
    switch (op.returns[i]) {
      case ArgKind::Tensor:
        take_predicted(op, predicted, result.toTensor(), fresh);
        break;
      case ArgKind::TensorList: {
        const Item item = predicted.next();
        if (item.tag != out::LIST) {
          throw ProtocolError("a list of results was predicted to be something else");
        }
        const auto list = result.toTensorList();
        const size_t n = item.n;
        TORCH_CHECK(
            n == list.size(),
            op.name,
            " gave ",
            list.size(),
            " tensors, but ",
            n,
            " were predicted");
        for (size_t k = 0; k < n; k++) {
          const at::Tensor tensor = list[k];
          take_predicted(op, predicted, tensor, fresh);
        }
        break;
      }
      default:
        if (!skip_values && predicted.next().tag != out::NONE) {
          throw ProtocolError("a result that is not a tensor was predicted to be one");
        }
    }
  }
  if (!predicted.empty()) {
    throw ProtocolError("more results were predicted than the operator has");
  }
}

void describe(
    const Operator& op,
    const torch::jit::Stack& results,
    const std::vector<c10::TensorImpl*>& arguments,
    uint64_t reserved,
    Described& to) {
  for (size_t i = 0; i < results.size(); i++) {
    switch (op.returns[i]) {
      case ArgKind::Tensor:
        describe_tensor(op, results[i].toTensor(), arguments, reserved, to);
        break;
      case ArgKind::TensorList: {
        const auto list = results[i].toTensorList();
        TORCH_CHECK(list.size() <= UINT16_MAX, op.name, " gave more than 65535 tensors");
        to.out.push_back(out::LIST);
        to.out.push_back(static_cast<uint8_t>(list.size()));
        to.out.push_back(static_cast<uint8_t>(list.size() >> 8));
        for (size_t k = 0; k < list.size(); k++) {
          const at::Tensor tensor = list[k];
          describe_tensor(op, tensor, arguments, reserved, to);
        }
        break;
      }
      default:
        describe_value(op, results[i], to);
    }
  }
}

} // namespace genie
