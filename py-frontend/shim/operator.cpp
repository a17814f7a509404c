#include "operator.h"

#include <c10/util/Exception.h>

#include <array>
#include <string_view>

#include "adapt.h"
#include "backend.h"
#include "doubts.h"
#include "infer.h"
#include "out.h"

namespace genie {
namespace {

ReturnKind kind_of_return(const c10::Argument& result) {
  switch (kind_of(result)) {
    case ArgKind::Tensor:
      return ReturnKind::Tensor;
    case ArgKind::TensorList:
      return ReturnKind::TensorList;
    default:
      return ReturnKind::Value;
  }
}

bool is_written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

// The argument that a return repeats: the one with the same alias set, if it is written.
int16_t alias_of(const c10::FunctionSchema& schema, const c10::Argument& result) {
  if (!is_written(result)) {
    return -1;
  }
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    if (is_written(argument) && kind_of(argument) == ArgKind::Tensor &&
        argument.alias_info()->beforeSets() == result.alias_info()->beforeSets()) {
      return static_cast<int16_t>(i);
    }
  }
  return -1;
}

// Batch norms write their running statistics when training, which their schemas do not say.
constexpr std::array<std::string_view, 3> kBatchNorms = {
    "aten::native_batch_norm",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
};

}  // namespace

ArgKind kind_of(const c10::Argument& argument) {
  // The real type tells a dtype from an int, which the plain one does not.
  const ArgKind kind = kind_of(*argument.real_type());
  return kind == ArgKind::OptionalTensorList ? ArgKind::TensorList : kind;
}

Operator::Operator(const c10::OperatorHandle& op) : handle(op) {
  const c10::FunctionSchema& schema = op.schema();
  const c10::OperatorName& name = op.operator_name();
  std::string full_name = name.name;
  if (!name.overload_name.empty()) {
    full_name += "." + name.overload_name;
  }
  number = genie_intern(full_name.c_str());

  bool reads_tensors = false;
  bool has_scalars = false;
  for (const c10::Argument& argument : schema.arguments()) {
    const ArgKind kind = kind_of(argument);
    const bool writes = is_written(argument);
    const bool is_tensor = kind == ArgKind::Tensor || kind == ArgKind::TensorList;
    arguments.push_back({kind, writes ? Writes::Always : Writes::Never});
    has_generator = has_generator || kind == ArgKind::Generator;
    has_out = has_out || (writes && argument.kwarg_only());
    reads_tensors = reads_tensors || (is_tensor && !(writes && argument.kwarg_only()));
    has_scalars = has_scalars || kind == ArgKind::Scalar;
    has_lists = has_lists || kind == ArgKind::TensorList || kind == ArgKind::ScalarList;
  }
  for (const c10::Argument& result : schema.returns()) {
    returns.push_back({kind_of_return(result), alias_of(schema, result)});
  }

  const bool random = op.hasTag(at::Tag::nondeterministic_seeded);
  draws_seed = random && !has_generator;
  // Without a tensor to read, numbers decide the shape (arange). Filled ones give it in `size`.
  key_has_data = !reads_tensors && has_scalars && !random && name.name != "aten::full" &&
      name.name != "aten::scalar_tensor";
  for (const std::string_view batch_norm : kBatchNorms) {
    if (name.name == batch_norm && !has_out) {
      for (size_t i = 0; i < arguments.size(); ++i) {
        const std::string& argument = schema.arguments()[i].name();
        if (argument == "running_mean" || argument == "running_var") {
          arguments[i].writes = Writes::WhenTraining;
        } else if (argument == "training") {
          training_argument = static_cast<int16_t>(i);
        }
      }
    }
  }

  // What is known here of operators is known of ATen's.
  if (is_atens(name.name)) {
    rule = find_rule(name);
    doubt = find_doubt(name);
    if (has_out) {
      functional = find_functional(op);
    }
    meta = find_meta(name);
    adapt(*this);
  }
  if (rule == nullptr && !meta.has_value()) {
    always_sync = !has_out &&
        (op.hasTag(at::Tag::dynamic_output_shape) || op.hasTag(at::Tag::data_dependent_output));
  }
  if (local_value == nullptr) {
    for (const Return& result : returns) {
      always_sync = always_sync || result.kind == ReturnKind::Value;
    }
  }
}

}  // namespace genie
