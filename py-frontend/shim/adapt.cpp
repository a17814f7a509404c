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
    if (arguments[i].isTensor() && is_remote(arguments[i].toTensor())) {
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
      name == "aten::tril_indices" || name == "aten::triu_indices" ||
      name == "aten::kaiser_window";
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

// What a distribution wants of its parameters, in PyTorch's words: they are data, which no shape tells.
void check_normal(const Operator&, c10::IValue* arguments) {
  const double std = arguments[2].toDouble();
  TORCH_CHECK(std >= 0.0, "normal expects std >= 0.0, but found std ", std);
}

void check_log_normal(const Operator&, c10::IValue* arguments) {
  const double std = arguments[2].toDouble();
  TORCH_CHECK(std > 0.0, "log_normal_ expects std > 0.0, but found std=", std);
}

void check_uniform(const Operator&, c10::IValue* arguments) {
  const double from = arguments[1].toDouble();
  const double to = arguments[2].toDouble();
  TORCH_CHECK(
      from <= to,
      "uniform_ expects to return a [from, to) range, but found from=",
      from,
      " > to=",
      to);
}

void check_exponential(const Operator&, c10::IValue* arguments) {
  const double lambda = arguments[1].toDouble();
  TORCH_CHECK(lambda > 0.0, "exponential_ expects lambda > 0.0, but found lambda=", lambda);
}

void check_cauchy(const Operator&, c10::IValue* arguments) {
  const double sigma = arguments[2].toDouble();
  TORCH_CHECK(sigma > 0.0, "cauchy_ expects sigma > 0.0, but found sigma=", sigma);
}

void check_geometric(const Operator&, c10::IValue* arguments) {
  const double p = arguments[1].toDouble();
  TORCH_CHECK(0 < p && p < 1, "geometric_ expects p to be in (0, 1), but got p=", p);
}

Prepare find_check(const std::string& name) {
  static const std::unordered_map<std::string_view, Prepare> checks = {
      {"aten::normal_", &check_normal}, {"aten::log_normal_", &check_log_normal},
      {"aten::uniform_", &check_uniform}, {"aten::exponential_", &check_exponential},
      {"aten::cauchy_", &check_cauchy}, {"aten::geometric_", &check_geometric},
  };
  const auto found = checks.find(name);
  return found == checks.end() ? nullptr : found->second;
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
  } else if (const Prepare check = find_check(name)) {
    op.prepare = check;
  } else {
    adapt_attention(op);
  }
}

}  // namespace genie
