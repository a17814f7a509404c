#include "long.h"

#include <ATen/ATen.h>
#include <ATen/core/List.h>
#include <ATen/native/Resize.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "backend.h"
#include "log_limits.h"
#include "record.h"

namespace genie {
namespace {

using at::Tensor;

// What a call takes of a record's bounds beside its lists.
constexpr size_t kOtherItems = 64;
constexpr size_t kOtherNumbers = 1024;
constexpr size_t kItemsMax = limits::ITEMS_MAX - kOtherItems;
constexpr size_t kNumbersMax = limits::NUMBERS_MAX - kOtherNumbers;
// So few items fit whatever their dimensions.
constexpr size_t kAlwaysFit = 120;
static_assert(kAlwaysFit * (2 + 4 * limits::DIMS_MAX) <= kNumbersMax);
// A tensor takes 12 bytes of a structure, and its result another 3.
static_assert(kItemsMax * 15 < limits::STRUCTURE_MAX);
// A result names an `out=` tensor by its place among all tensors, in a byte.
constexpr size_t kBeforeOutMax = 255;

bool is_list(ArgKind kind) {
  return kind == ArgKind::TensorList || kind == ArgKind::OptionalTensorList ||
      kind == ArgKind::ScalarList;
}

// The numbers that an item takes, with its result's.
size_t numbers_of(const c10::IValue& item) {
  if (!item.isTensor() || !item.toTensor().defined()) {
    return 2;
  }
  return 2 + 4 * static_cast<size_t>(item.toTensor().dim());
}

struct Weight {
  size_t items = 0;
  size_t numbers = 0;

  void add(const c10::IValue& item) {
    items += 1;
    numbers += numbers_of(item);
  }
  bool fits() const {
    return items <= kItemsMax && numbers <= kNumbersMax;
  }
};

std::string_view plain_name(const Operator& op) {
  std::string_view name = op.handle.schema().name();
  name.remove_prefix(std::string_view("aten::").size());
  return name;
}

bool starts_with(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

// Operators that do the same to each item of their lists, and nothing across them.
bool is_itemwise(const Operator& op) {
  const std::string_view name = plain_name(op);
  return !op.has_out &&
      (starts_with(name, "_foreach_") || starts_with(name, "_fused_") ||
       starts_with(name, "_amp_foreach_"));
}

bool is_join(const Operator& op) {
  const std::string_view name = plain_name(op);
  return name == "cat" || name == "stack" || name == "_stack";
}

// A list of items [begin, end) of another, of the same type.
c10::IValue slice(const c10::IValue& whole, size_t begin, size_t end) {
  const auto list = whole.toList();
  c10::impl::GenericList part(list.elementType());
  part.reserve(end - begin);
  const auto items = whole.toListRef();
  for (size_t i = begin; i < end; ++i) {
    part.push_back(items[i]);
  }
  return part;
}

// Encoding says what is wrong with anything else.
bool all_on_one_device(const Operator& op, Arguments arguments) {
  c10::DeviceIndex device = -1;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!is_list(op.arguments[i].kind) || !arguments[i].isList()) {
      continue;
    }
    for (const c10::IValue& item : arguments[i].toListRef()) {
      if (!item.isTensor() || !item.toTensor().defined()) {
        continue;
      }
      const c10::Device found = item.toTensor().device();
      if (found.type() != kRemote || (device >= 0 && found.index() != device)) {
        return false;
      }
      device = found.index();
    }
  }
  return true;
}

bool record_items(const Operator& op, torch::jit::Stack& stack) {
  const size_t n = op.arguments.size();
  const std::vector<c10::IValue> arguments(stack.end() - static_cast<ptrdiff_t>(n), stack.end());
  constexpr size_t kWhole = std::numeric_limits<size_t>::max();
  size_t length = kWhole;
  for (size_t i = 0; i < n; ++i) {
    if (is_list(op.arguments[i].kind) && arguments[i].isList() &&
        !arguments[i].toListRef().empty()) {
      const size_t found = arguments[i].toListRef().size();
      if (length != kWhole && found != length) {
        return false;
      }
      length = found;
    }
  }
  if (length == kWhole || !all_on_one_device(op, arguments)) {
    return false;
  }
  // One number an item may come as a tensor, too.
  const auto is_cut = [&](size_t i) {
    if (is_list(op.arguments[i].kind)) {
      return arguments[i].isList() && !arguments[i].toListRef().empty();
    }
    return arguments[i].isTensor() && op.handle.schema().arguments()[i].name() == "scalars" &&
        arguments[i].toTensor().dim() == 1 &&
        static_cast<size_t>(arguments[i].toTensor().size(0)) == length;
  };
  std::vector<std::vector<c10::IValue>> results(op.returns.size());
  for (size_t begin = 0; begin < length;) {
    size_t end = begin;
    for (Weight weight; end < length; ++end) {
      for (size_t i = 0; i < n; ++i) {
        if (is_list(op.arguments[i].kind) && is_cut(i)) {
          weight.add(arguments[i].toListRef()[end]);
        }
      }
      if (!weight.fits()) {
        break;
      }
    }
    end = std::max(end, begin + 1);
    torch::jit::Stack part;
    for (size_t i = 0; i < n; ++i) {
      if (!is_cut(i)) {
        part.push_back(arguments[i]);
      } else if (arguments[i].isTensor()) {
        part.emplace_back(arguments[i].toTensor().narrow(
            0, static_cast<int64_t>(begin), static_cast<int64_t>(end - begin)));
      } else {
        part.push_back(slice(arguments[i], begin, end));
      }
    }
    record(op, part);
    for (size_t i = 0; i < results.size(); ++i) {
      if (part[i].isList()) {
        const auto items = part[i].toListRef();
        results[i].insert(results[i].end(), items.begin(), items.end());
      } else {
        results[i].assign(1, part[i]);
      }
    }
    begin = end;
  }
  torch::jit::drop(stack, n);
  for (size_t i = 0; i < results.size(); ++i) {
    if (op.returns[i].kind != ReturnKind::TensorList) {
      stack.push_back(results[i].front());
      continue;
    }
    c10::List<Tensor> list;
    list.reserve(results[i].size());
    for (const c10::IValue& item : results[i]) {
      list.push_back(item.toTensor());
    }
    stack.emplace_back(std::move(list));
  }
  return true;
}

// Joins by `op` what fits, and by cat what that gives.
Tensor join(const Operator& op, const c10::IValue& tensors, int64_t dim) {
  static const Operator& cat = operator_named("aten::cat", "");
  const auto items = tensors.toListRef();
  c10::List<Tensor> parts;
  for (size_t begin = 0; begin < items.size();) {
    size_t end = begin;
    for (Weight weight; end < items.size(); ++end) {
      weight.add(items[end]);
      if (!weight.fits()) {
        break;
      }
    }
    // Two at least, so that fewer are left.
    end = std::min(std::max(end, begin + 2), items.size());
    parts.push_back(record_one(op, {slice(tensors, begin, end), dim}));
    begin = end;
  }
  return parts.size() == 1 ? parts.get(0) : join(cat, parts, dim);
}

bool record_join(const Operator& op, torch::jit::Stack& stack) {
  const size_t n = op.arguments.size();
  const Arguments arguments(stack.data() + (stack.size() - n), n);
  if (!all_on_one_device(op, arguments)) {
    return false;
  }
  const c10::IValue tensors = arguments[0];
  const auto items = tensors.toListRef();
  if (plain_name(op) != "cat") {
    const auto first = items[0].toTensor().sizes();
    for (size_t i = 1; i < items.size(); ++i) {
      TORCH_CHECK(
          items[i].toTensor().sizes().equals(first),
          "stack expects each tensor to be equal size, but got ", first, " at entry 0 and ",
          items[i].toTensor().sizes(), " at entry ", i);
    }
  }
  const Operator& joins = op.has_out ? operator_named(op.handle.schema().name().c_str(), "") : op;
  const Tensor joined = join(joins, tensors, arguments[1].toInt());
  if (!op.has_out) {
    torch::jit::drop(stack, n);
    stack.emplace_back(joined);
    return true;
  }
  const Tensor out = arguments[2].toTensor();
  TORCH_CHECK(
      c10::canCast(joined.scalar_type(), out.scalar_type()),
      "torch.", plain_name(op), "(): input types can't be cast to the desired output type ",
      out.scalar_type());
  at::native::resize_output(out, joined.sizes());
  out.copy_(joined);
  torch::jit::drop(stack, n);
  stack.emplace_back(out);
  return true;
}

}  // namespace

bool is_long(const Operator& op, Arguments arguments) {
  size_t items = 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_list(op.arguments[i].kind) && arguments[i].isList()) {
      items += arguments[i].toListRef().size();
    }
  }
  if (items <= kAlwaysFit) {
    return false;
  }
  if (op.has_out && items > kBeforeOutMax) {
    return true;
  }
  Weight weight;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_list(op.arguments[i].kind) && arguments[i].isList()) {
      for (const c10::IValue& item : arguments[i].toListRef()) {
        weight.add(item);
      }
    }
  }
  return !weight.fits();
}

bool record_in_parts(const Operator& op, torch::jit::Stack& stack) {
  if (is_itemwise(op)) {
    return record_items(op, stack);
  }
  return is_join(op) && record_join(op, stack);
}

}  // namespace genie
