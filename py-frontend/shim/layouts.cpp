// Sparse, compressed and nested tensors: structure is this process's, elements are dense tensors of the device.
// What PyTorch itself composes of operators on those runs as it is; the rest runs on the CPU, on copies.
#include "layouts.h"

#include <ATen/core/List.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Layout.h>

#include <array>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend.h"
#include "fallback.h"
#include "layout_operators.h"
#include "parts.h"

namespace genie {
namespace {

// A few of them look for a kernel of their device after all.
bool lacks_a_kernel(const c10::Error& error) {
  return std::string_view(error.what_without_backtrace()).find("DispatchStub") !=
      std::string_view::npos;
}

// Kernels that PyTorch registers for another backend, and that call operators only.
template <c10::DispatchKey key>
void as_registered(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto count = static_cast<std::ptrdiff_t>(op.schema().arguments().size());
  const torch::jit::Stack given(stack->end() - count, stack->end());
  const size_t below = stack->size() - given.size();
  try {
    op.callBoxedForDispatchKey(key, *stack);
  } catch (const c10::Error& error) {
    if (!lacks_a_kernel(error)) {
      throw;
    }
    stack->resize(below);
    stack->insert(stack->end(), given.begin(), given.end());
    run_composed_on_cpu(op, stack);
  }
}

template <c10::DispatchKey key, size_t count>
void take_over(torch::Library& library, const std::array<const char*, count>& names) {
  for (const char* name : names) {
    if (std::string_view(name) == "_transformer_encoder_layer_fwd") {
      continue;  // nested.cpp: on padded tensors it is one operator
    }
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&as_registered<key>>());
  }
}

// Of dense tensors to such ones.
constexpr std::array kMakers = {
    "_to_sparse", "_to_sparse.sparse_dim", "_to_sparse_bsc", "_to_sparse_bsr", "_to_sparse_csc",
    "_to_sparse_csr", "_nested_from_padded", "_nested_tensor_from_mask",
    "_nested_tensor_from_mask_left_aligned", "_nested_view_from_buffer",
};

// From numbers to their quantised form.
constexpr std::array kQuantize = {
    "quantize_per_tensor", "quantize_per_tensor.tensor_qparams", "quantize_per_tensor_dynamic",
    "quantize_per_channel",
};

// What a quantised tensor knows without its elements.
constexpr std::array kQuantizers = {
    "q_scale", "q_zero_point", "q_per_channel_scales", "q_per_channel_zero_points",
    "q_per_channel_axis", "qscheme",
};

// The arguments of one call as they are on the CPU, each once.
class Local {
 public:
  at::Tensor take(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.device().type() != kRemote) {
      return tensor;
    }
    device_ = tensor.device();
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

  c10::IValue take(const c10::IValue& value) {
    if (value.isTensor()) {
      return take(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const c10::IValue& item : value.toListRef()) {
        list.push_back(take(item.toTensor()));
      }
      return list;
    }
    if (value.isList()) {
      const auto items = value.toListRef();
      bool has_tensors = false;
      for (const c10::IValue& item : items) {
        has_tensors = has_tensors || item.isTensor();
      }
      if (has_tensors) {
        c10::List<std::optional<at::Tensor>> list;
        for (const c10::IValue& item : items) {
          list.push_back(item.isTensor() ? std::optional(take(item.toTensor())) : std::nullopt);
        }
        return list;
      }
    }
    if (value.isDevice()) {
      // What is made goes where the call says.
      asked_ = value.toDevice();
      return asked_->type() == kRemote ? c10::Device(c10::kCPU) : *asked_;
    }
    return value;
  }

  // Where results go.
  c10::Device device() const {
    return asked_.value_or(device_);
  }

 private:
  c10::Device device_{kRemote, 0};
  std::optional<c10::Device> asked_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> copies_;
};

bool is_written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

c10::IValue give(const c10::IValue& value, c10::Device device) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? to_device(value.toTensor(), device) : value.toTensor();
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const c10::IValue& item : value.toListRef()) {
      list.push_back(to_device(item.toTensor(), device));
    }
    return list;
  }
  return value;
}

}  // namespace

void run_composed_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  warn_of_fallback(op);
  run_composed_quietly(op, stack);
}

void run_composed_quietly(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size();
  const torch::jit::Stack given(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end());
  torch::jit::drop(*stack, count);

  Local local;
  torch::jit::Stack call;
  call.reserve(count);
  for (const c10::IValue& argument : given) {
    call.push_back(local.take(argument));
  }
  const torch::jit::Stack copies = call;
  op.callBoxed(&call);

  for (size_t i = 0; i < count; ++i) {
    if (is_written(schema.arguments()[i]) && given[i].isTensor() && given[i].toTensor().defined()) {
      put_into(given[i].toTensor(), copies[i].toTensor());
    }
  }
  for (size_t i = 0; i < call.size(); ++i) {
    const c10::Argument& result = schema.returns()[i];
    c10::IValue value;
    bool is_argument = false;
    for (size_t k = 0; k < count && is_written(result) && !is_argument; ++k) {
      // The result that is an argument is that argument.
      is_argument = is_written(schema.arguments()[k]) && call[i].isTensor() && copies[k].isTensor() &&
          call[i].toTensor().is_same(copies[k].toTensor());
      if (is_argument) {
        value = given[k];
      }
    }
    stack->push_back(is_argument ? value : give(call[i], local.device()));
  }
}

void register_layouts() {
  const auto library = [](c10::DispatchKey key) {
    // Never destroyed: its kernels are for the life of the process.
    return new torch::Library(torch::Library::IMPL, "aten", key, __FILE__, __LINE__);
  };
  static torch::Library* const sparse = library(c10::DispatchKey::SparsePrivateUse1);
  static torch::Library* const compressed = library(c10::DispatchKey::SparseCsrPrivateUse1);
  static torch::Library* const nested = library(c10::DispatchKey::NestedTensorPrivateUse1);
  static torch::Library* const quantized = library(c10::DispatchKey::QuantizedPrivateUse1);
  static torch::Library* const dense = library(c10::DispatchKey::PrivateUse1);
  take_over<c10::DispatchKey::SparseCPU>(*sparse, kSparseOperators);
  take_over<c10::DispatchKey::SparseCsrCPU>(*compressed, kCompressedOperators);
  take_over<c10::DispatchKey::NestedTensorCPU>(*nested, kNestedOperators);
  take_over<c10::DispatchKey::QuantizedCPU>(*quantized, kQuantizers);
  take_over<c10::DispatchKey::CPU>(*dense, kMakers);
  for (const char* name : kQuantize) {
    dense->impl(name, torch::CppFunction::makeFromBoxedFunction<&run_composed_quietly>());
  }
  static torch::Library* const quantized_here = library(c10::DispatchKey::QuantizedCPU);
  register_quantised(*quantized, *quantized_here);
  register_sparse(*sparse);
  register_compressed(*dense);
  register_nested(*nested);
  register_jagged(*dense);
  for (const auto key :
       {c10::DispatchKey::SparsePrivateUse1, c10::DispatchKey::SparseCsrPrivateUse1,
        c10::DispatchKey::NestedTensorPrivateUse1, c10::DispatchKey::QuantizedPrivateUse1}) {
    auto* const all = new torch::Library(torch::Library::IMPL, "_", key, __FILE__, __LINE__);
    all->fallback(torch::CppFunction::makeFromBoxedFunction<&run_composed_on_cpu>());
  }
}

}  // namespace genie
