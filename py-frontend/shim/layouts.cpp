// Sparse, compressed and nested tensors: structure is this process's, elements are dense tensors of the device.
// What PyTorch itself composes of operators on those runs as it is; the rest is left to the fallback.
#include "layouts.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Layout.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "annotations.h"
#include "backend.h"
#include "fallback.h"
#include "layout_operators.h"

namespace genie {
namespace {

// A few of them look for a kernel of their device after all.
bool lacks_a_kernel(const c10::Error& error) {
  return std::string_view(error.what_without_backtrace()).find("DispatchStub") !=
      std::string_view::npos;
}

using Values = torch::jit::Stack::iterator;

// What is made of parts is made in PyTorch's own code.
void note_made(Values from, Values to) {
  std::for_each(from, to, [](const c10::IValue& value) {
    if (value.isTensor() && is_remote(value.toTensor())) {
      note_annotation(value.toTensor());
    }
  });
}

// Kernels that PyTorch registers for another backend, and that call operators only.
template <c10::DispatchKey key>
void as_registered(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto count = static_cast<std::ptrdiff_t>(op.schema().arguments().size());
  const torch::jit::Stack given(stack->end() - count, stack->end());
  const size_t below = stack->size() - given.size();
  // What is made of no tensor is made on the current device: CUDA's wrappers see to that, too.
  const c10::OptionalDeviceGuard on(device_of(given));
  try {
    op.callBoxedForDispatchKey(key, *stack);
  } catch (const c10::Error& error) {
    if (!lacks_a_kernel(error)) {
      throw;
    }
    stack->resize(below);
    stack->insert(stack->end(), given.begin(), given.end());
    run_on_cpu(op, stack);
  }
  if (C10_UNLIKELY(annotations.load(std::memory_order_relaxed) != 0) && !op.schema().is_mutable()) {
    note_made(stack->begin() + static_cast<std::ptrdiff_t>(below), stack->end());
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

}  // namespace

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
    dense->impl(name, torch::CppFunction::makeFromBoxedFunction<&run_quietly_on_cpu>());
  }
  static torch::Library* const quantized_here = library(c10::DispatchKey::QuantizedCPU);
  register_quantised(*quantized, *quantized_here);
  register_sparse(*sparse);
  register_compressed(*dense);
  register_nested(*nested);
  register_jagged(*dense);
}

}  // namespace genie
