// What the recorder must know of an operator, worked out once from its schema.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "../../dataplane/executor/cpp/operator_name.h"
#include "../../dataplane/executor/cpp/schema_kind.h"

namespace genie {

class ResultBuilder;
struct Operator;

enum class Writes : uint8_t { Never, Always, WhenTraining };

struct Argument {
  ArgKind kind;
  Writes writes;
};

enum class ReturnKind : uint8_t { Tensor, TensorList, Value };

struct Return {
  ReturnKind kind;
  // The argument that this return is (in place, or out=), or -1.
  int16_t alias_of;
};

// The arguments of a call, in the schema's order.
using Arguments = c10::ArrayRef<c10::IValue>;

enum class Shapes {
  Known,
  AskMeta,  // PyTorch's shape function decides, or says what is wrong
  AskNode,  // the values decide
  AskNodeOnce,  // the node says it of the first such call, and of all like it
};

// Works out result shapes by hand, where PyTorch's own shape functions are missing or slow.
using ShapeRule = Shapes (*)(const Operator& op, Arguments arguments, ResultBuilder& results);
// Rewrites arguments on the stack before the call is encoded.
using Prepare = void (*)(const Operator& op, c10::IValue* arguments);
// A result that is not a tensor and that the arguments alone decide.
using LocalValue = c10::IValue (*)(size_t index, Arguments arguments);

struct Operator {
  explicit Operator(const c10::OperatorHandle& handle);

  c10::OperatorHandle handle;
  uint32_t number;
  std::vector<Argument> arguments;
  std::vector<Return> returns;
  bool draws_seed = false;  // random, without a generator argument
  bool has_generator = false;
  bool has_lists = false;  // of tensors or scalars, which may be longer than a record holds
  bool key_has_data = false;
  bool always_sync = false;  // the values decide the shapes, or a result is not a tensor
  bool has_out = false;  // writes keyword-only arguments, which may need another size
  int16_t training_argument = -1;  // for Writes::WhenTraining
  int16_t dropout_argument = -1;  // a probability: at zero the call draws no seed
  ShapeRule rule = nullptr;
  // Whether a call that the shapes allow is to be tried at once: doubts.h.
  bool (*doubt)(Arguments arguments) = nullptr;
  Prepare prepare = nullptr;
  LocalValue local_value = nullptr;
  // PyTorch's C++ shape function where Python may have shadowed it in the dispatcher.
  std::optional<c10::KernelFunction> meta;
  // Of an operator that writes `out=`: the one that makes its results anew, if there is one.
  std::optional<c10::OperatorHandle> functional;

  // Whether a call is random without a generator argument.
  bool draws(Arguments call) const {
    return draws_seed && (dropout_argument < 0 || call[dropout_argument].toDouble() > 0.0);
  }
};

// How an argument is encoded; lists of `Tensor` and of `Tensor?` alike.
ArgKind kind_of(const c10::Argument& argument);

}  // namespace genie
