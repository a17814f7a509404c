#include "adapt.h"

#include <ATen/core/List.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/ScalarType.h>

#include <string_view>
#include <unordered_map>

#include "attention.h"
#include "backend.h"
#include "copy.h"

namespace genie {
namespace {

// Indices may be on the CPU, as with CUDA: they are uploaded.
void upload_indices(const Operator& op, c10::IValue* arguments) {
  c10::Device device(c10::kCPU);
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    if (arguments[i].isTensor() && arguments[i].toTensor().device().type() == kRemote) {
      device = arguments[i].toTensor().device();
      break;
    }
  }
  if (device.is_cpu()) {
    return;  // encoding says what is wrong
  }
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    if (op.arguments[i].kind != ArgKind::TensorList || arguments[i].isNone()) {
      continue;
    }
    const auto items = arguments[i].toListRef();
    bool any_on_cpu = false;
    for (const c10::IValue& item : items) {
      any_on_cpu = any_on_cpu ||
          (item.isTensor() && item.toTensor().defined() && item.toTensor().device().is_cpu());
    }
    if (!any_on_cpu) {
      continue;
    }
    c10::List<std::optional<at::Tensor>> uploaded;
    uploaded.reserve(items.size());
    for (const c10::IValue& item : items) {
      if (item.isNone() || !item.toTensor().defined()) {
        uploaded.push_back(std::nullopt);
      } else if (item.toTensor().device().is_cpu()) {
        uploaded.push_back(upload(item.toTensor(), device));
      } else {
        uploaded.push_back(item.toTensor());
      }
    }
    arguments[i] = std::move(uploaded);
  }
}

bool is_factory(std::string_view name) {
  return name == "aten::zeros" || name == "aten::ones" || name == "aten::rand" ||
      name == "aten::randn" || name == "aten::eye" || name == "aten::linspace" ||
      name == "aten::logspace" || name == "aten::full" || name == "aten::scalar_tensor" ||
      name == "aten::arange" || name == "aten::randint" || name == "aten::randperm" ||
      name == "aten::tril_indices" || name == "aten::triu_indices";
}

// Writes the dtype that PyTorch would choose into the call: the node does not know the client's
// default dtype.
void choose_dtype(const Operator& op, c10::IValue* arguments) {
  size_t dtype = op.arguments.size();
  bool all_int = true;
  bool all_bool = true;
  bool any_complex = false;
  bool has_scalar = false;
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    const c10::IValue& value = arguments[i];
    if (op.arguments[i].kind == ArgKind::Enum) {
      dtype = i;  // the first of dtype and layout
      break;
    }
    if (op.arguments[i].kind == ArgKind::Scalar) {
      has_scalar = true;
      all_int = all_int && (value.isInt() || value.isBool());
      all_bool = all_bool && value.isBool();
      any_complex = any_complex || value.isComplexDouble();
    }
  }
  TORCH_INTERNAL_ASSERT(dtype < op.arguments.size());
  if (!arguments[dtype].isNone()) {
    return;
  }
  const std::string_view name = op.handle.schema().name();
  const c10::ScalarType floating = c10::get_default_dtype_as_scalartype();
  c10::ScalarType chosen = floating;
  if (name == "aten::randint" || name == "aten::randperm" || name == "aten::tril_indices" ||
      name == "aten::triu_indices") {
    chosen = c10::ScalarType::Long;
  } else if (has_scalar && any_complex) {
    chosen = c10::toComplexType(floating);
  } else if (name == "aten::full" && all_bool) {
    chosen = c10::ScalarType::Bool;
  } else if ((name == "aten::full" || name == "aten::arange") && all_int) {
    chosen = c10::ScalarType::Long;
  }
  arguments[dtype] = static_cast<int64_t>(chosen);
}

}  // namespace

void adapt(Operator& op) {
  const std::string& name = op.handle.schema().name();
  if (name == "aten::index" || name == "aten::_unsafe_index" || name == "aten::index_put" ||
      name == "aten::index_put_" || name == "aten::_unsafe_index_put" ||
      name == "aten::_index_put_impl_" || name == "aten::_index_put_impl") {
    op.prepare = &upload_indices;
  } else if (is_factory(name) && !op.has_out) {
    op.prepare = &choose_dtype;
  } else {
    adapt_attention(op);
  }
}

}  // namespace genie
