#include "arguments.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ScalarOps.h>
#include <ATen/core/List.h>
#include <c10/core/DefaultDtype.h>

#include <cstring>

#include "operator_name.h"
#include "view.h"

namespace genie {
namespace {

static_assert(tag::COUNT == 22, "an argument tag is new: say here what it becomes");

double as_double(int64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

[[noreturn]] void mismatch(const Operator& op, size_t index, uint8_t tag) {
  TORCH_CHECK(
      false,
      op.name,
      ": argument `",
      op.handle.schema().arguments()[index].name(),
      "` can't be made from an item of tag ",
      static_cast<int>(tag));
}

at::Tensor tensor_argument(
    Streams& in,
    const Item& item,
    std::vector<c10::TensorImpl*>* tensors) {
  const uint8_t* head = item.fields;
  const size_t ndim = item.n;
  GenieView view{};
  view.storage = in.storage();
  view.flags = head[0];
  view.dtype = head[1];
  view.ndim = ndim;
  const int64_t* numbers = item.params;
  view.offset = numbers[0];
  view.sizes = numbers + 1;
  view.strides = numbers + 1 + ndim;
  at::Tensor tensor = make_view(view);
  if (head[0] & flag::WRAPPED) {
    tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  if (tensors) {
    tensors->push_back(tensor.unsafeGetTensorImpl());
  }
  return tensor;
}

at::Tensor scalar_tensor_argument(const Item& item) {
  const uint8_t* head = item.fields;
  const auto dtype = checked_dtype(head[1]);
  at::Scalar value;
  if (c10::isComplexType(dtype)) {
    value = c10::complex<double>(as_double(item.data[0]), as_double(item.data[1]));
  } else if (c10::isFloatingType(dtype)) {
    value = as_double(*item.data);
  } else if (dtype == c10::ScalarType::Bool) {
    value = *item.data != 0;
  } else {
    value = *item.data;
  }
  at::Tensor tensor = at::detail::scalar_tensor_static(value, dtype, at::kCPU);
  if (head[0] & flag::WRAPPED) {
    tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  if (head[0] & flag::NEGATIVE) {
    tensor._set_neg(true);
  }
  if (head[0] & flag::CONJUGATE) {
    tensor._set_conj(true);
  }
  return tensor;
}

at::Generator seeded_generator(uint64_t seed) {
  if (device().is_cpu()) {
    return at::detail::createCPUGenerator(seed);
  }
  auto generator = at::globalContext().defaultGenerator(device()).clone();
  generator.set_current_seed(seed);
  return generator;
}

void seed_default(uint64_t seed) {
  auto generator = at::globalContext().defaultGenerator(device());
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(seed);
}

// A number from any of the number tags.
at::Scalar number(const Item& item, const Operator& op, size_t index) {
  switch (item.tag) {
    case tag::INT:
      return *item.params;
    case tag::ENUM:
      return static_cast<int64_t>(static_cast<int8_t>(*item.fields));
    case tag::SCALAR_INT:
      return *item.data;
    case tag::DOUBLE:
    case tag::SCALAR_DOUBLE:
      return as_double(*item.data);
    case tag::TRUE:
    case tag::SCALAR_TRUE:
      return true;
    case tag::FALSE:
    case tag::SCALAR_FALSE:
      return false;
    case tag::SCALAR_COMPLEX:
      return c10::complex<double>(as_double(item.data[0]), as_double(item.data[1]));
    default:
      mismatch(op, index, item.tag);
  }
}

c10::List<int64_t> int_list(const Item& item) {
  c10::List<int64_t> list;
  list.reserve(item.n);
  for (size_t i = 0; i < item.n; i++) {
    list.push_back(item.params[i]);
  }
  return list;
}

at::Tensor tensor_item(
    Streams& in,
    const Item& item,
    const Operator& op,
    size_t index,
    std::vector<c10::TensorImpl*>* tensors) {
  switch (item.tag) {
    case tag::NONE:
      return {};
    case tag::TENSOR:
      return tensor_argument(in, item, tensors);
    case tag::SCALAR_TENSOR:
      return scalar_tensor_argument(item);
    default:
      mismatch(op, index, item.tag);
  }
}

// A list whose items have tags of their own.
c10::IValue list_argument(
    Streams& in,
    size_t n,
    ArgKind kind,
    const Operator& op,
    size_t index,
    std::vector<c10::TensorImpl*>* tensors) {
  switch (kind) {
    case ArgKind::TensorList: {
      c10::List<at::Tensor> list;
      list.reserve(n);
      for (size_t i = 0; i < n; i++) {
        const Item item = in.next();
        list.push_back(tensor_item(in, item, op, index, tensors));
      }
      return list;
    }
    case ArgKind::OptionalTensorList: {
      c10::List<std::optional<at::Tensor>> list;
      list.reserve(n);
      for (size_t i = 0; i < n; i++) {
        const Item item = in.next();
        if (item.tag == tag::NONE) {
          list.push_back(std::nullopt);
        } else {
          list.push_back(tensor_item(in, item, op, index, tensors));
        }
      }
      return list;
    }
    case ArgKind::ScalarList: {
      c10::List<at::Scalar> list;
      list.reserve(n);
      for (size_t i = 0; i < n; i++) {
        list.push_back(number(in.next(), op, index));
      }
      return list;
    }
    case ArgKind::IntList: {
      c10::List<int64_t> list;
      for (size_t i = 0; i < n; i++) {
        list.push_back(number(in.next(), op, index).toLong());
      }
      return list;
    }
    case ArgKind::DoubleList: {
      c10::List<double> list;
      for (size_t i = 0; i < n; i++) {
        list.push_back(number(in.next(), op, index).toDouble());
      }
      return list;
    }
    default:
      mismatch(op, index, tag::LIST);
  }
}

c10::IValue argument(
    Streams& in,
    const Operator& op,
    size_t index,
    std::vector<c10::TensorImpl*>* tensors) {
  const Argument& wanted = op.arguments[index];
  const Item item = in.next();
  const uint8_t tag = item.tag;
  if (tag == tag::NONE) {
    if (wanted.optional) {
      return {};
    }
    if (wanted.kind == ArgKind::Tensor) {
      return at::Tensor();
    }
    mismatch(op, index, tag);
  }
  if (tag == tag::LIST) {
    return list_argument(in, item.n, wanted.kind, op, index, tensors);
  }
  switch (wanted.kind) {
    case ArgKind::Tensor:
      return tensor_item(in, item, op, index, tensors);
    case ArgKind::Int:
    case ArgKind::Enum:
      return number(item, op, index).toLong();
    case ArgKind::Double:
      return number(item, op, index).toDouble();
    case ArgKind::Bool:
      if (tag == tag::TRUE || tag == tag::FALSE) {
        return tag == tag::TRUE;
      }
      return number(item, op, index).toBool();
    case ArgKind::Scalar:
      return number(item, op, index);
    case ArgKind::IntList:
      if (tag == tag::INT_LIST) {
        return int_list(item);
      }
      return c10::List<int64_t>({number(item, op, index).toLong()});
    case ArgKind::DoubleList: {
      c10::List<double> list;
      if (tag == tag::DOUBLE_LIST) {
        for (size_t i = 0; i < item.n; i++) {
          list.push_back(as_double(item.data[i]));
        }
        return list;
      }
      if (tag == tag::INT_LIST) {
        for (const int64_t value : int_list(item)) {
          list.push_back(static_cast<double>(value));
        }
        return list;
      }
      list.push_back(number(item, op, index).toDouble());
      return list;
    }
    case ArgKind::BoolList:
      if (tag == tag::BOOL_LIST) {
        c10::List<bool> list;
        for (size_t i = 0; i < item.n; i++) {
          list.push_back(item.bytes[i] != 0);
        }
        return list;
      }
      break;
    case ArgKind::ScalarList:
      if (tag == tag::INT_LIST) {
        c10::List<at::Scalar> list;
        for (const int64_t value : int_list(item)) {
          list.push_back(value);
        }
        return list;
      }
      if (tag == tag::DOUBLE_LIST) {
        c10::List<at::Scalar> list;
        for (size_t i = 0; i < item.n; i++) {
          list.push_back(as_double(item.data[i]));
        }
        return list;
      }
      break;
    case ArgKind::String:
      if (tag == tag::STRING) {
        return std::string(reinterpret_cast<const char*>(item.bytes), item.n);
      }
      break;
    case ArgKind::Device:
      if (tag == tag::DEVICE) {
        return device();
      }
      break;
    case ArgKind::Generator:
      if (tag == tag::GENERATOR) {
        return seeded_generator(static_cast<uint64_t>(*item.data));
      }
      break;
    case ArgKind::TensorList:
    case ArgKind::OptionalTensorList:
      // An empty list has no tensors to tell its type by.
      if (tag == tag::INT_LIST && item.n == 0) {
        if (wanted.kind == ArgKind::TensorList) {
          return c10::List<at::Tensor>();
        }
        return c10::List<std::optional<at::Tensor>>();
      }
      break;
    case ArgKind::Unsupported:
      break;
  }
  mismatch(op, index, tag);
}

} // namespace

Operator resolve(c10::OperatorHandle handle) {
  Operator op{handle, toString(handle.operator_name()), {}, {}, true, false,
              work_of(plain_name(handle.operator_name().name)),
              checks_of(toString(handle.operator_name()), handle.schema())};
  for (const auto& argument : handle.schema().arguments()) {
    const c10::Type& type = *argument.type();
    const bool optional = type.kind() == c10::TypeKind::OptionalType;
    const auto& value = argument.default_value();
    op.arguments.push_back(
        {kind_of(type), optional, value ? *value : c10::IValue(), value.has_value()});
  }
  size_t references = 0;
  for (const auto& result : handle.schema().returns()) {
    references += result.alias_info() ? 1 : 0;
    const ArgKind kind = kind_of(*result.type());
    op.returns.push_back(kind);
    op.only_tensor_returns &= kind == ArgKind::Tensor || kind == ArgKind::TensorList;
  }
  op.returns_references = references > 1;
  return op;
}

void build(
    const Operator& op,
    const GenieCall& call,
    torch::jit::Stack& stack,
    std::vector<c10::TensorImpl*>* tensors) {
  Streams in(call);
  const size_t n = op.arguments.size();
  stack.reserve(n);
  size_t index = 0;
  auto default_dtype = c10::kFloat;
  if (!in.empty() && in.peek() == tag::DEFAULT_DTYPE) {
    default_dtype = checked_dtype(*in.next().fields);
    if (!c10::isFloatingType(default_dtype)) {
      throw ProtocolError("a default dtype that is not a floating type");
    }
  }
  if (default_dtype != c10::get_default_dtype_as_scalartype()) {
    c10::set_default_dtype(c10::scalarTypeToTypeMeta(default_dtype));
  }
  while (!in.empty()) {
    if (in.peek() == tag::SEED) {
      seed_default(static_cast<uint64_t>(*in.next().data));
      if (!in.empty()) {
        throw ProtocolError("an argument after the seed");
      }
      break;
    }
    TORCH_CHECK(index < n, op.name, " takes ", n, " arguments, more were given");
    stack.push_back(argument(in, op, index, tensors));
    index++;
  }
  for (; index < n; index++) {
    TORCH_CHECK(
        op.arguments[index].has_default,
        op.name,
        ": argument `",
        op.handle.schema().arguments()[index].name(),
        "` is missing");
    stack.push_back(op.arguments[index].default_value);
  }
}

} // namespace genie
