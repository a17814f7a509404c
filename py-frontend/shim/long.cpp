#include "long.h"

#include <ATen/ATen.h>
#include <ATen/core/List.h>
#include <ATen/native/Resize.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "allocator.h"
#include "backend.h"
#include "errors.h"
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

constexpr size_t kWhole = std::numeric_limits<size_t>::max();

// How many items the lists of an itemwise call have; kWhole where they differ, or there are none.
size_t length_of(const Operator& op, Arguments arguments) {
  size_t length = kWhole;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_list(op.arguments[i].kind) && arguments[i].isList() &&
        !arguments[i].toListRef().empty()) {
      const size_t found = arguments[i].toListRef().size();
      if (length != kWhole && found != length) {
        return kWhole;
      }
      length = found;
    }
  }
  return length;
}

// Whether argument `i` has something for each of `length` items. One number an item may come as a
// tensor, too.
bool is_cut(const Operator& op, Arguments arguments, size_t i, size_t length) {
  if (is_list(op.arguments[i].kind)) {
    return arguments[i].isList() && !arguments[i].toListRef().empty();
  }
  return arguments[i].isTensor() && op.handle.schema().arguments()[i].name() == "scalars" &&
      arguments[i].toTensor().dim() == 1 &&
      static_cast<size_t>(arguments[i].toTensor().size(0)) == length;
}

using Items = std::vector<size_t>;

// Some items of a list, or numbers of a tensor.
c10::IValue pick(const c10::IValue& whole, const Items& items) {
  if (whole.isTensor()) {
    const std::vector<int64_t> numbers(items.begin(), items.end());
    const Tensor index = at::tensor(numbers, at::kLong);
    return whole.toTensor().index_select(0, index.to(whole.toTensor().device()));
  }
  const auto list = whole.toList();
  c10::impl::GenericList part(list.elementType());
  part.reserve(items.size());
  const auto all = whole.toListRef();
  for (const size_t item : items) {
    part.push_back(all[item]);
  }
  return part;
}

// Records an itemwise call once for each of `parts`, which are all its items.
void record_each(const Operator& op, torch::jit::Stack& stack, const std::vector<Items>& parts) {
  const size_t n = op.arguments.size();
  const std::vector<c10::IValue> arguments(stack.end() - static_cast<ptrdiff_t>(n), stack.end());
  const size_t length = length_of(op, arguments);
  std::vector<std::vector<c10::IValue>> results(op.returns.size());
  for (const Items& items : parts) {
    torch::jit::Stack part;
    for (size_t i = 0; i < n; ++i) {
      part.push_back(
          is_cut(op, arguments, i, length) ? pick(arguments[i], items) : arguments[i]);
    }
    record(op, part);
    for (size_t i = 0; i < results.size(); ++i) {
      if (!part[i].isList()) {
        results[i].assign(1, part[i]);
        continue;
      }
      results[i].resize(length);
      const auto made = part[i].toListRef();
      for (size_t at = 0; at < items.size(); ++at) {
        results[i][items[at]] = made[at];
      }
    }
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
}

bool record_items(const Operator& op, torch::jit::Stack& stack) {
  const size_t n = op.arguments.size();
  const Arguments arguments(stack.data() + (stack.size() - n), n);
  const size_t length = length_of(op, arguments);
  if (length == kWhole || !all_on_one_device(op, arguments)) {
    return false;
  }
  std::vector<Items> parts;
  for (size_t begin = 0; begin < length;) {
    size_t end = begin;
    for (Weight weight; end < length; ++end) {
      for (size_t i = 0; i < n; ++i) {
        if (is_list(op.arguments[i].kind) && is_cut(op, arguments, i, length)) {
          weight.add(arguments[i].toListRef()[end]);
        }
      }
      if (!weight.fits()) {
        break;
      }
    }
    end = std::max(end, begin + 1);
    Items items(end - begin);
    std::iota(items.begin(), items.end(), begin);
    parts.push_back(std::move(items));
    begin = end;
  }
  record_each(op, stack, parts);
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

bool record_by_place(const Operator& op, torch::jit::Stack& stack) {
  const size_t n = op.arguments.size();
  const Arguments arguments(stack.data() + (stack.size() - n), n);
  if (!is_itemwise(op) || n == 0 || op.arguments[0].kind != ArgKind::TensorList) {
    return false;
  }
  const size_t length = length_of(op, arguments);
  if (length == kWhole || length < 2 || !all_on_one_device(op, arguments)) {
    return false;
  }
  std::vector<GenieStorage> handles(length);
  const auto written = arguments[0].toListRef();
  if (written.size() != length) {
    return false;
  }
  for (size_t i = 0; i < length; ++i) {
    const Tensor& tensor = written[i].toTensor();
    handles[i] = tensor.defined() ? handle_of(tensor) : 0;
  }
  std::vector<int32_t> places(length);
  check(genie_places(handles.data(), length, places.data()));
  std::vector<Items> parts;
  std::vector<int32_t> of_part;
  for (size_t i = 0; i < length; ++i) {
    const auto found = std::find(of_part.begin(), of_part.end(), places[i]);
    const auto part = static_cast<size_t>(found - of_part.begin());
    if (found == of_part.end()) {
      of_part.push_back(places[i]);
      parts.emplace_back();
    }
    parts[part].push_back(i);
  }
  if (parts.size() < 2) {
    return false;
  }
  record_each(op, stack, parts);
  return true;
}

bool record_in_parts(const Operator& op, torch::jit::Stack& stack) {
  if (is_itemwise(op)) {
    return record_items(op, stack);
  }
  return is_join(op) && record_join(op, stack);
}

}  // namespace genie
