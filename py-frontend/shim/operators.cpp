// Which operators are recorded as they are.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <string_view>
#include <unordered_set>

#include "attention.h"
#include "backend.h"
#include "kernels.h"
#include "operator.h"
#include "record.h"

namespace genie {
namespace {

// Operators that would be recorded by their schema, but are not. By name, all overloads.
bool is_exception(std::string_view name) {
  static const std::unordered_set<std::string_view> names = {
      // With kernels of their own (copy.cpp, views.cpp, factories.cpp).
      "_copy_from", "_copy_from_and_resize", "_local_scalar_dense", "_to_copy", "_to_cpu", "copy_",
      "is_set_to", "record_stream", "resize_", "set_",
      // PyTorch's composition calls kernels of this backend, and may be for another device.
      "_assert_tensor_metadata", "_pin_memory", "_resize_output", "_resize_output_", "copy",
      "empty_like", "empty_quantized", "full_like", "is_pinned", "lift", "lift_fresh", "new_empty",
      "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones_like", "rand_like",
      "randint_like", "randn_like", "resize_as_", "resize_as_sparse_", "zeros_like",
      // Views that their schemas do not call views: the composition makes them without a message.
      "_lazy_clone", "_unsafe_view", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes",
      // Answered from metadata, here.
      "_debug_has_internal_overlap", "_has_same_storage_numel", "dense_dim", "is_coalesced",
      "is_same_size", "sparse_dim",
      // Compositions that decide by fetching one value.
      "allclose",
      // Compositions of operators that are recorded; one takes lengths on the CPU, as on CUDA.
      "_chunk_cat", "_pack_padded_sequence", "_unsafe_masked_index",
      "_unsafe_masked_index_put_accumulate", "split_copy", "split_with_sizes_copy", "unbind_copy",
      // Chosen in attention.cpp.
      "_fused_sdp_choice",
      // Cannot be right: other layouts, other devices, other libraries.
      "_cslt_sparse_mm_search", "_dimI", "_dimV", "_indices", "_nested_get_ragged_idx", "_nnz",
      "_to_sparse", "_to_sparse_bsc", "_to_sparse_bsr", "_to_sparse_csc", "_to_sparse_csr",
      "_use_cudnn_ctc_loss", "_use_miopen_ctc_loss", "_values", "q_per_channel_axis", "q_scale",
      "q_zero_point", "qscheme", "to_mkldnn",
      "_sparse_coo_tensor_with_dims_and_tensors", "sparse_compressed_tensor",
      "_nested_from_padded", "_nested_tensor_from_mask", "_nested_tensor_from_mask_left_aligned",
      "_nested_view_from_buffer", "_validate_compressed_sparse_indices",
      "_convert_indices_from_coo_to_csr", "_convert_indices_from_csr_to_coo",
      "_jagged_to_padded_dense_forward", "_padded_dense_to_jagged_forward",
      "quantize_per_channel", "quantize_per_tensor", "quantize_per_tensor_dynamic",
      "_empty_per_channel_affine_quantized", "_nested_tensor_from_tensor_list",
  };
  return names.count(name) != 0;
}

// Factories that one call to the node makes, where PyTorch's composition takes two.
bool is_recorded_factory(const c10::OperatorName& name) {
  static const std::unordered_set<std::string_view> names = {
      "arange", "arange.start", "arange.start_step", "eye", "eye.m", "full", "linspace", "logspace",
      "ones", "rand", "rand.generator", "randint", "randint.generator", "randint.low",
      "randint.low_generator", "randn", "randn.generator", "randperm", "randperm.generator",
      "scalar_tensor", "tril_indices", "triu_indices", "zeros",
      "kaiser_window", "kaiser_window.beta", "kaiser_window.periodic",
  };
  std::string text = name.name.substr(std::string_view("aten::").size());
  if (!name.overload_name.empty()) {
    text += "." + name.overload_name;
  }
  return names.count(text) != 0;
}

bool is_view(const c10::FunctionSchema& schema) {
  for (const c10::Argument& argument : schema.arguments()) {
    if (argument.alias_info() != nullptr && !argument.alias_info()->isWrite()) {
      return true;
    }
  }
  return false;
}

// `linspace` and `logspace` between tensors look at them first, and may be for another device.
bool looks_at_its_ends(const c10::OperatorName& name) {
  return (name.name == "aten::linspace" || name.name == "aten::logspace") &&
      name.overload_name.find("Tensor") != std::string::npos;
}

bool is_recorded(const c10::OperatorHandle& op) {
  const std::string_view name = plain_name(op.operator_name().name);
  if (op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) ||
      is_exception(name) || op.hasTag(at::Tag::inplace_view) || is_view(op.schema())) {
    return false;
  }
  if (looks_at_its_ends(op.operator_name())) {
    return false;
  }
  bool takes_tensor = false;
  for (const c10::Argument& argument : op.schema().arguments()) {
    const ArgKind kind = kind_of(argument);
    if (kind == ArgKind::Unsupported) {
      return false;
    }
    takes_tensor = takes_tensor || kind == ArgKind::Tensor || kind == ArgKind::TensorList;
  }
  return takes_tensor || is_recorded_factory(op.operator_name());
}

// Compositions that read their tensors' memory instead of calling operators. A kernel for this
// backend comes before them.
bool reads_memory(std::string_view name) {
  return name.rfind("fbgemm_", 0) == 0 || name.rfind("quantized_", 0) == 0;
}

void refuse(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, op.schema().name(), " needs this machine's memory and does not run on ", kDeviceName);
}

}  // namespace

void register_recorded_operators() {
  static torch::Library aten(
      torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (!is_atens(name.name)) {
      continue;
    }
    const auto op = dispatcher.findSchema(name);
    if (!op.has_value()) {
      continue;
    }
    const std::string full =
        name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
    if (reads_memory(plain_name(name.name))) {
      aten.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&refuse>());
    } else if (is_recorded(*op)) {
      aten.impl(full.c_str(), recorder_kernel());
    }
  }
}

void register_kernels() {
  static torch::Library aten(
      torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  register_copies(aten);
  register_factories(aten);
  register_views(aten);
  register_attention_choice();
}

}  // namespace genie
