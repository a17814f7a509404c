#include "fallback.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <typeinfo>
#include <unordered_map>
#include <vector>

#include "allocator.h"
#include "backend.h"
#include "foreign.h"
#include "operator.h"
#include "parts.h"
#include "replay/taping.h"
#include "tensor_lists.h"

namespace genie {
namespace {

// The arguments of one call as they are on the CPU, each once.
class Local {
 public:
  at::Tensor take(const at::Tensor& tensor) {
    if (!is_remote(tensor)) {
      return tensor;
    }
    const auto found = copies_.find(tensor.unsafeGetTensorImpl());
    if (found != copies_.end()) {
      return found->second;
    }
    at::Tensor copy = to_device(tensor, c10::kCPU);
    if (tensor.requires_grad()) {
      // Kernels that save for a backward pass look.
      copy = copy.detach();
      copy.set_requires_grad(true);
    }
    return copies_.emplace(tensor.unsafeGetTensorImpl(), std::move(copy)).first->second;
  }

  c10::IValue take(ArgKind kind, const c10::IValue& value) {
    if (value.isTensor()) {
      return take(value.toTensor());
    }
    if (kind == ArgKind::TensorList) {
      return replace_tensors(value, [this](const at::Tensor& tensor) { return take(tensor); });
    }
    if (value.isDevice()) {
      // What is made goes where the call says.
      asked_ = value.toDevice();
      return asked_->type() == kRemote ? c10::Device(c10::kCPU) : *asked_;
    }
    return value;
  }

  // The device that the call names, of whatever kind.
  std::optional<c10::Device> asked() const {
    return asked_;
  }

 private:
  std::optional<c10::Device> asked_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> copies_;
};

bool is_written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

c10::IValue give(const c10::OperatorHandle& op, const c10::IValue& value, c10::Device device) {
  const auto there = [&](const at::Tensor& tensor) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        !tensor.defined() || has_parts(tensor),
        op.schema().name(),
        ": a result of layout ",
        tensor.layout(),
        " can't be kept on a ",
        kDeviceName);
    return to_device(tensor, device);
  };
  if (value.isTensor()) {
    return there(value.toTensor());
  }
  return value.isTensorList() ? replace_tensors(value, there) : value;
}

// What was written here is written there.
void write_back(const c10::IValue& given, const c10::IValue& copy) {
  if (given.isTensor()) {
    if (given.toTensor().defined()) {
      put_into(given.toTensor(), copy.toTensor());
    }
  } else if (given.isTensorList()) {
    for (size_t i = 0; i < given.toListRef().size(); ++i) {
      write_back(given.toListRef()[i], copy.toListRef()[i]);
    }
  }
}

// How a node may come to have it.
const char* remedy(const c10::OperatorHandle& op, std::optional<c10::Device> device) {
  if (is_atens(op.operator_name().name)) {
    return "";
  }
  if (device.has_value() && offered(op, *device) == Offered::Another) {
    return ". The node's library of it is of another release, with another schema: load the same on both "
           "sides";
  }
  return ". A node has what its `--operator-library` define";
}

void warn(const c10::OperatorHandle& op, std::optional<c10::Device> device) {
  const std::string full = toString(op.operator_name());
  if (genie_count_fallback(full.c_str()) == 0) {
    return;
  }
  const std::string text = c10::str(
      full,
      " is not an operator that ",
      kDeviceName,
      " has; it runs on this machine's CPU, with its tensors copied there and back",
      remedy(op, device));
  // PyTorch's functions make Python's warnings of it; calls by torch.ops have nobody who does.
  const auto& handler = *c10::WarningUtils::get_warning_handler();
  if (typeid(handler) == typeid(c10::WarningHandler)) {
    genie_warn(text.c_str());
  } else {
    TORCH_WARN(text);
  }
}

// What is going to be fetched is asked for together.
void expect(c10::ArrayRef<c10::IValue> arguments) {
  std::vector<GenieBytes> values;
  for_each_tensor(arguments, [&](const at::Tensor& tensor) {
    if (is_remote(tensor) && is_plain(tensor) && tensor.numel() > 0 && tensor.is_contiguous()) {
      const uint64_t offset = static_cast<uint64_t>(tensor.storage_offset()) * tensor.itemsize();
      values.push_back({handle_of(tensor), offset, tensor.nbytes()});
    }
  });
  if (values.size() > 1) {
    genie_expect(values.data(), values.size());
  }
}

}  // namespace

std::optional<c10::Device> device_of(c10::ArrayRef<c10::IValue> arguments) {
  std::optional<c10::Device> found;
  for (const c10::IValue& argument : arguments) {
    if (argument.isDevice() && argument.toDevice().type() == kRemote && !found.has_value()) {
      found = c10::Device(kRemote, index_or_current(argument.toDevice()));
    }
  }
  for_each_tensor(arguments, [&](const at::Tensor& tensor) {
    if (!found.has_value() && is_remote(tensor)) {
      found = tensor.device();
    }
  });
  return found;
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  warn(op, device_of(torch::jit::last(stack, op.schema().arguments().size())));
  run_quietly_on_cpu(op, stack);
}

void run_quietly_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  replay::notice_unforeseeable();
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size();
  const torch::jit::Stack given(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end());
  torch::jit::drop(*stack, count);

  expect(given);
  Local local;
  torch::jit::Stack call;
  call.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    call.push_back(local.take(kind_of(schema.arguments()[i]), given[i]));
  }
  const torch::jit::Stack copies = call;
  op.callBoxed(&call);

  for (size_t i = 0; i < count; ++i) {
    if (is_written(schema.arguments()[i])) {
      write_back(given[i], copies[i]);
    }
  }
  // The result that is an argument is that argument.
  const auto as_given = [&](const c10::IValue& result) -> const c10::IValue* {
    for (size_t i = 0; i < count; ++i) {
      if (is_written(schema.arguments()[i]) && result.isTensor() && copies[i].isTensor() &&
          result.toTensor().is_same(copies[i].toTensor())) {
        return &given[i];
      }
    }
    return nullptr;
  };
  const c10::Device there =
      local.asked().value_or(device_of(given).value_or(c10::Device(kRemote, current_device())));
  for (const c10::IValue& result : call) {
    const c10::IValue* const argument = as_given(result);
    stack->push_back(argument != nullptr ? *argument : give(op, result, there));
  }
}

namespace {

void run_unknown(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (is_atens(op.operator_name().name)) {
    run_on_cpu(op, stack);
  } else {
    run_foreign(op, stack);
  }
}

}  // namespace

void register_fallback() {
  for (const auto key :
       {c10::DispatchKey::PrivateUse1, c10::DispatchKey::SparsePrivateUse1,
        c10::DispatchKey::SparseCsrPrivateUse1, c10::DispatchKey::NestedTensorPrivateUse1,
        c10::DispatchKey::QuantizedPrivateUse1}) {
    // Never destroyed: it is for the life of the process.
    auto* const all = new torch::Library(torch::Library::IMPL, "_", key, __FILE__, __LINE__);
    const bool is_dense = key == c10::DispatchKey::PrivateUse1;
    all->fallback(
        is_dense ? torch::CppFunction::makeFromBoxedFunction<&run_unknown>()
                 : torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  }
}

}  // namespace genie
