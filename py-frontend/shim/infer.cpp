#include "infer.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/native/Resize.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "errors.h"
#include "log_limits.h"
#include "skeleton.h"
#include "tensor_lists.h"

namespace genie {

void ResultBuilder::none() {
  skeleton_.push(out::NONE);
}

void ResultBuilder::fresh(
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::IntArrayRef strides) {
  check_dims(sizes.size());
  skeleton_.push(out::FRESH);
  skeleton_.push(static_cast<uint8_t>(dtype));
  skeleton_.push(static_cast<uint8_t>(sizes.size()));
  int64_t* p = params_.reserve(2 * sizes.size());
  p = std::copy(sizes.begin(), sizes.end(), p);
  p = std::copy(strides.begin(), strides.end(), p);
  params_.filled_to(p);
}

void ResultBuilder::contiguous(c10::ScalarType dtype, c10::IntArrayRef sizes) {
  fresh(dtype, sizes, c10::contiguous_strides(sizes));
}

void ResultBuilder::like(const at::Tensor& tensor, c10::ScalarType dtype) {
  const auto sizes = tensor.sizes();
  if (tensor.is_non_overlapping_and_dense()) {
    fresh(dtype, sizes, tensor.strides());
  } else {
    fresh(dtype, sizes, at::infer_dense_strides(sizes, tensor.strides()));
  }
}

void ResultBuilder::alias(size_t tensor_index) {
  TORCH_CHECK(tensor_index <= 0xff, kDeviceName, ": a result repeats argument ", tensor_index);
  skeleton_.push(out::ALIAS);
  skeleton_.push(static_cast<uint8_t>(tensor_index));
}

void ResultBuilder::list(size_t length) {
  TORCH_CHECK(
      length < limits::ITEMS_MAX,
      kDeviceName, ": ", length, " results of one call are too many, at most ",
      limits::ITEMS_MAX - 1, " are possible");
  skeleton_.push(out::LIST);
  skeleton_.push(static_cast<uint8_t>(length & 0xff));
  skeleton_.push(static_cast<uint8_t>(length >> 8));
}

void ResultBuilder::clear() {
  skeleton_.clear();
  params_.clear();
}

GenieResults ResultBuilder::results() const noexcept {
  return {skeleton_.data(), skeleton_.size(), params_.data(), params_.size()};
}

at::Tensor to_meta(const at::Tensor& tensor) {
  if (tensor.device().is_cpu() && tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    return tensor;  // PyTorch's Python shape functions take it for the number it wraps
  }
  at::Tensor meta =
      at::detail::empty_strided_meta(tensor.sizes(), tensor.strides(), tensor.scalar_type());
  c10::TensorImpl* const impl = meta.unsafeGetTensorImpl();
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    impl->set_wrapped_number(true);
  }
  if (is_remote(tensor)) {
    impl->_set_conj(tensor.is_conj());
    impl->_set_neg(tensor.is_neg());
  }
  return meta;
}

namespace {

// Shape functions run below autograd and autocast, as the kernel they stand for would.
struct BelowAutograd {
  at::AutoDispatchBelowADInplaceOrView autograd;
  c10::impl::ExcludeDispatchKeyGuard autocast{c10::autocast_dispatch_keyset};
};

// The arguments with every tensor replaced by one on the Meta device, the same one for the same.
class MetaArguments {
 public:
  MetaArguments(const Operator& op, Arguments arguments) {
    stack_.reserve(arguments.size());
    for (size_t i = 0; i < arguments.size(); ++i) {
      stack_.push_back(convert(op.arguments[i].kind, arguments[i]));
    }
    originals_ = stack_;
  }

  torch::jit::Stack& stack() noexcept {
    return stack_;
  }
  // An argument after the call; the call itself consumes the stack.
  const c10::IValue& argument(size_t i) const {
    return originals_[i];
  }

 private:
  c10::IValue convert(ArgKind kind, const c10::IValue& value) {
    if (value.isTensor()) {
      return tensor(value.toTensor());
    }
    switch (kind) {
      case ArgKind::TensorList:
        return replace_tensors(
            value, [this](const at::Tensor& original) { return tensor(original); });
      case ArgKind::Device:
        return value.isNone() ? value : c10::IValue(c10::Device(c10::kMeta));
      case ArgKind::Generator:
        return {};  // one of ours is no Meta generator, and shapes need none
      default:
        return value;
    }
  }

  at::Tensor tensor(const at::Tensor& original) {
    if (!original.defined()) {
      return original;
    }
    for (const auto& [seen, converted] : seen_) {
      if (seen == original.unsafeGetTensorImpl()) {
        return converted;
      }
    }
    at::Tensor meta = to_meta(original);
    // Lists of hundreds of tensors have no duplicates worth a search.
    if (seen_.size() < 8) {
      seen_.emplace_back(original.unsafeGetTensorImpl(), meta);
    }
    return meta;
  }

  torch::jit::Stack stack_;
  torch::jit::Stack originals_;
  std::vector<std::pair<const c10::TensorImpl*, at::Tensor>> seen_;
};

// True when the failure says that there is no shape function, as against what is wrong with the
// shapes. Python's exceptions come as a type of libtorch_python, with their class in the text.
bool says_not_implemented(const std::exception& error) {
  return dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr ||
      std::strncmp(error.what(), "NotImplementedError", 19) == 0;
}

bool comes_from_python(const std::exception& error) {
  const std::string_view text = error.what();
  const size_t colon = text.find(": ");
  constexpr std::string_view end = "Error";
  return dynamic_cast<const c10::Error*>(&error) == nullptr && colon != std::string_view::npos &&
      colon > end.size() && text.substr(colon - end.size(), end.size()) == end;
}

// False when there is no shape function for the operator.
bool call_meta(const Operator& op, torch::jit::Stack& stack) {
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::Meta);
  if (op.meta.has_value()) {
    op.meta->callBoxed(op.handle, keys, &stack);
    return true;
  }
  try {
    op.handle.redispatchBoxed(keys, &stack);
    return true;
  } catch (const std::exception& error) {
    if (!says_not_implemented(error)) {
      throw;
    }
    return false;
  }
}

// The number of tensors that are encoded before an argument.
size_t tensors_before(const Operator& op, Arguments arguments, size_t argument) {
  const auto is_there = [](const c10::IValue& value) {
    return value.isTensor() && is_remote(value.toTensor());
  };
  size_t count = 0;
  for (size_t i = 0; i < argument; ++i) {
    if (op.arguments[i].kind == ArgKind::TensorList && arguments[i].isList()) {
      for (const c10::IValue& item : arguments[i].toListRef()) {
        count += is_there(item) ? 1 : 0;
      }
    } else {
      count += is_there(arguments[i]) ? 1 : 0;
    }
  }
  return count;
}

void describe(const at::Tensor& meta, ResultBuilder& results) {
  if (meta.defined()) {
    results.fresh(meta.scalar_type(), meta.sizes(), meta.strides());
  } else {
    results.none();
  }
}

// Gives an `out=` tensor the shape that the operator wants.
void resize_out(const at::Tensor& out, const at::Tensor& wanted) {
  if (out.sizes().equals(wanted.sizes())) {
    return;
  }
  at::native::resize_output(out, wanted.sizes());
  if (!out.strides().equals(wanted.strides())) {
    out.unsafeGetTensorImpl()->set_sizes_and_strides(wanted.sizes(), wanted.strides());
  }
}

bool only_aliases(const Operator& op) {
  for (const Return& result : op.returns) {
    if (result.alias_of < 0) {
      return false;
    }
  }
  return true;
}

void describe_aliases(const Operator& op, Arguments arguments, ResultBuilder& results) {
  for (const Return& result : op.returns) {
    results.alias(tensors_before(op, arguments, result.alias_of));
  }
}

}  // namespace

Shapes infer(const Operator& op, Arguments arguments, ResultBuilder& results) {
  results.clear();
  const BelowAutograd guard;
  const bool is_doubtful = op.doubt != nullptr && op.doubt(arguments);
  if (op.rule != nullptr) {
    const Shapes shapes = op.rule(op, arguments, results);
    if (shapes != Shapes::AskMeta) {
      return is_doubtful && shapes == Shapes::Known ? Shapes::AskNodeOnce : shapes;
    }
    results.clear();
  }

  MetaArguments meta(op, arguments);
  bool is_known = false;
  try {
    is_known = call_meta(op, meta.stack());
  } catch (const std::exception& error) {
    // PyTorch's Python shape functions refuse with words of their own, and more than kernels do.
    if (!comes_from_python(error)) {
      throw;
    }
    // Those of others may refuse since the shape is told by what the tensors hold.
    return is_atens(op.handle.schema().name()) ? Shapes::AskNodeOnce : Shapes::AskNode;
  }
  if (is_known && is_doubtful) {
    return Shapes::AskNodeOnce;
  }
  if (!is_known) {
    // In place the result is the argument, whatever else the node will find.
    if (only_aliases(op) && !op.has_out) {
      describe_aliases(op, arguments, results);
      return Shapes::Known;
    }
    return Shapes::AskNode;
  }

  const torch::jit::Stack& values = meta.stack();
  TORCH_INTERNAL_ASSERT(values.size() == op.returns.size());
  if (op.has_out) {
    for (size_t i = 0; i < op.arguments.size(); ++i) {
      if (op.arguments[i].writes == Writes::Always && arguments[i].isTensor() &&
          arguments[i].toTensor().defined()) {
        resize_out(arguments[i].toTensor(), meta.argument(i).toTensor());
      }
    }
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const Return result = op.returns[i];
    if (result.alias_of >= 0) {
      results.alias(tensors_before(op, arguments, result.alias_of));
      continue;
    }
    switch (result.kind) {
      case ReturnKind::Tensor:
        describe(values[i].toTensor(), results);
        break;
      case ReturnKind::TensorList: {
        const auto items = values[i].toListRef();
        results.list(items.size());
        for (const c10::IValue& item : items) {
          describe(item.toTensor(), results);
        }
        break;
      }
      case ReturnKind::Value:
        return Shapes::AskNode;
    }
  }
  return Shapes::Known;
}

}  // namespace genie
