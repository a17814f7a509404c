#include "checks.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <functional>
#include <optional>
#include <sstream>
#include <vector>

#include "checks_table.h"
#include "operator_name.h"
#include "skeleton.h"
#include "view.h"

namespace genie {
namespace {

using Arguments = torch::jit::Stack;
using Rule = std::function<bool(const Arguments&)>;

// All tensors of an argument that are there.
template <typename Body>
bool every_tensor(const c10::IValue& value, Body&& body) {
  if (value.isTensor()) {
    return !value.toTensor().defined() || body(value.toTensor());
  }
  if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) {
      if (item.isTensor() && item.toTensor().defined() && !body(item.toTensor())) {
        return false;
      }
    }
  }
  return true;
}

const at::Tensor* tensor(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() ? &value.toTensor() : nullptr;
}

size_t length(const c10::IValue& value) {
  return value.isIntList()    ? value.toIntVector().size()
      : value.isDoubleList()  ? value.toDoubleVector().size()
      : value.isBoolList()    ? value.toBoolList().size()
      : value.isList()        ? value.toListRef().size()
                              : 0;
}

// What a number may be compared with: a product of numbers and of what arguments have. Nothing where
// an argument is not there.
struct Factor {
  enum class Kind { Number, Value, Dim, Numel, Size, SizeOf, Before, Len, Item } kind = Kind::Number;
  size_t argument = 0;
  int64_t number = 0;
};

std::optional<int64_t> evaluate(const Factor& factor, const Arguments& arguments) {
  if (factor.kind == Factor::Kind::Number) {
    return factor.number;
  }
  const c10::IValue& value = arguments[factor.argument];
  if (value.isNone() || (value.isTensor() && !value.toTensor().defined())) {
    return std::nullopt;
  }
  switch (factor.kind) {
    case Factor::Kind::Value:
      return value.isInt() ? std::optional(value.toInt())
          : value.isBool() ? std::optional<int64_t>(value.toBool())
                           : std::nullopt;
    case Factor::Kind::Dim:
      return value.toTensor().dim();
    case Factor::Kind::Numel:
      return value.toTensor().numel();
    case Factor::Kind::Size:
      return value.toTensor().size(factor.number);
    case Factor::Kind::Before:
      return value.toTensor().size(factor.number) - 1;
    case Factor::Kind::SizeOf:
      return value.toTensor().size(arguments[static_cast<size_t>(factor.number)].toInt());
    case Factor::Kind::Len:
      return static_cast<int64_t>(length(value));
    case Factor::Kind::Item: {
      const auto list = value.toIntVector();
      TORCH_CHECK_INDEX(
          factor.number < static_cast<int64_t>(list.size()), "a list is too short");
      return list[static_cast<size_t>(factor.number)];
    }
    default:
      return std::nullopt;
  }
}

// What numbers in lists (sizes, paddings, windows) may come to: kernels add and multiply them.
constexpr int64_t NUMBER_MAX = int64_t{1} << 48;

using Product = std::vector<Factor>;

std::optional<int64_t> evaluate(const Product& product, const Arguments& arguments) {
  int64_t result = 1;
  for (const Factor& factor : product) {
    const auto value = evaluate(factor, arguments);
    if (!value) {
      return std::nullopt;
    }
    TORCH_CHECK_VALUE(!__builtin_mul_overflow(result, *value, &result), "a size overflows");
  }
  return result;
}

// More elements than places: kernels that take a result for dense would write behind it.
bool overlaps(const at::Tensor& tensor) {
  int64_t places = 1;
  for (int64_t i = 0; i < tensor.dim(); i++) {
    if (tensor.size(i) == 0) {
      return false;
    }
    places += (tensor.size(i) - 1) * tensor.stride(i);
  }
  return tensor.numel() > places;
}

// Reads one clause of the table for one operator.
class Reader {
 public:
  Reader(const c10::FunctionSchema& schema, const std::string& clause)
      : schema_(schema), words_(clause) {}

  // None where the operator lacks an argument that the clause names: other overloads have it.
  std::optional<Rule> rule() {
    std::string word;
    words_ >> word;
    if (word == "refused") {
      return Rule([](const Arguments&) { return false; });
    }
    if (word == "same") {
      return all([](const at::Tensor& first, const at::Tensor& other) {
        return first.sizes() == other.sizes();
      });
    }
    if (word == "type") {
      return all([](const at::Tensor& first, const at::Tensor& other) {
        return first.scalar_type() == other.scalar_type();
      });
    }
    if (word == "count") {
      return all([](const at::Tensor& first, const at::Tensor& other) {
        return first.numel() == other.numel();
      });
    }
    if (word == "swaps") {
      return all([](const at::Tensor& first, const at::Tensor& other) {
        return &first == &other ||
            (first.dim() >= 2 && other.dim() == first.dim() - 1 &&
             other.sizes().slice(0, other.dim() - 1) == first.sizes().slice(0, first.dim() - 2) &&
             other.size(-1) == std::min(first.size(-1), first.size(-2)));
      });
    }
    if (word == "fills") {
      return all([](const at::Tensor& first, const at::Tensor& other) {
        return other.numel() == 0 || first.numel() == other.numel();
      });
    }
    if (word == "dense") {
      return each([](const at::Tensor& one) { return one.is_non_overlapping_and_dense(); });
    }
    if (word == "contiguous") {
      return each([](const at::Tensor& one) { return one.is_contiguous(); });
    }
    if (word == "apart") {
      return each([](const at::Tensor& one) { return !overlaps(one); });
    }
    if (word == "batched") {
      return each([](const at::Tensor& one) { return one.dim() <= 3 || one.is_contiguous(); });
    }
    if (word == "floating") {
      return each([](const at::Tensor& one) { return c10::isFloatingType(one.scalar_type()); });
    }
    if (word == "long") {
      return each([](const at::Tensor& one) { return one.scalar_type() == at::kLong; });
    }
    if (word == "single") {
      return each([](const at::Tensor& one) { return one.numel() == 1; });
    }
    if (word == "filled") {
      return each([](const at::Tensor& one) { return one.numel() > 0; });
    }
    if (word == "defined") {
      const auto named = rest();
      return !named ? std::optional<Rule>() : Rule([named](const Arguments& arguments) {
        return std::all_of(named->begin(), named->end(), [&](size_t at) {
          return tensor(arguments[at]) != nullptr;
        });
      });
    }
    if (word == "lists") {
      return lists(false);
    }
    if (word == "flat") {
      return lists(true);
    }
    if (word == "dims" || word == "distinct") {
      return dims(word == "distinct");
    }
    if (word == "values" || word == "upto") {
      return values(word == "upto");
    }
    if (word == "column") {
      return column();
    }
    if (word == "sums") {
      return sums();
    }
    if (word == "rising") {
      return each([](const at::Tensor& one) {
        const at::Tensor flat = one.flatten();
        return flat.numel() < 2 || !one.device().is_cpu() ||
            flat.slice(0, 1).ge(flat.slice(0, 0, -1)).all().item<bool>();
      });
    }
    if (word == "labels") {
      return labels();
    }
    if (word == "pairs") {
      return pairs();
    }
    if (word == "scale") {
      return scale();
    }
    if (word == "windows") {
      return windows();
    }
    if (word == "if" || word == "unless") {
      std::string name;
      words_ >> name;
      const auto at = argument(name);
      const auto then = at ? rule() : std::nullopt;
      if (!then) {
        return std::nullopt;
      }
      return Rule([at = *at, then = *then, wanted = word == "if"](const Arguments& arguments) {
        return !arguments[at].isBool() || arguments[at].toBool() != wanted || then(arguments);
      });
    }
    return comparison(word);
  }

  bool has_unknown() const {
    return !unknown_.empty();
  }

 private:
  std::optional<size_t> argument(const std::string& name) {
    for (size_t i = 0; i < schema_.arguments().size(); i++) {
      if (schema_.arguments()[i].name() == name) {
        return i;
      }
    }
    unknown_ = name;
    return std::nullopt;
  }

  std::optional<std::vector<size_t>> rest() {
    std::vector<size_t> named;
    std::string word;
    while (words_ >> word) {
      // What one overload lacks does not loosen the rest.
      if (const auto at = argument(word)) {
        named.push_back(*at);
      }
    }
    return named.empty() ? std::nullopt : std::optional(named);
  }

  // Every tensor, beside the first.
  template <typename Holds>
  std::optional<Rule> all(Holds holds) {
    const auto named = rest();
    if (!named) {
      return std::nullopt;
    }
    return Rule([named = *named, holds](const Arguments& arguments) {
      const at::Tensor* first = nullptr;
      return std::all_of(named.begin(), named.end(), [&](size_t at) {
        const at::Tensor* other = tensor(arguments[at]);
        if (!first) {
          first = other;
        }
        return !other || holds(*first, *other);
      });
    });
  }

  template <typename Holds>
  std::optional<Rule> each(Holds holds) {
    const auto named = rest();
    if (!named) {
      return std::nullopt;
    }
    return Rule([named = *named, holds](const Arguments& arguments) {
      return std::all_of(named.begin(), named.end(), [&](size_t at) {
        return every_tensor(arguments[at], holds);
      });
    });
  }

  // Lists as long as the first; where `flat`, of tensors that lie as those of the first do. Empty ones
  // are of no use to the operator.
  std::optional<Rule> lists(bool flat) {
    const auto named = rest();
    if (!named) {
      return std::nullopt;
    }
    return Rule([named = *named, flat](const Arguments& arguments) {
      if (!arguments[named[0]].isList()) {
        return true;
      }
      const auto first = arguments[named[0]].toListRef();
      for (const size_t at : named) {
        if (!arguments[at].isList()) {
          continue;
        }
        const auto list = arguments[at].toListRef();
        if (list.size() != first.size() && (!flat || !list.empty())) {
          return false;
        }
        for (size_t i = 0; flat && i < list.size(); i++) {
          const at::Tensor& one = first[i].toTensor();
          const at::Tensor& other = list[i].toTensor();
          if (one.sizes() != other.sizes() || one.scalar_type() != other.scalar_type() ||
              !other.is_non_overlapping_and_dense()) {
            return false;
          }
        }
      }
      return true;
    });
  }

  // dims LIST TENSOR: each names a dimension; where `distinct`, another one, and not from the end.
  std::optional<Rule> dims(bool distinct) {
    const auto named = rest();
    if (!named || named->size() != 2) {
      return std::nullopt;
    }
    return Rule([list = (*named)[0], of = (*named)[1], distinct](const Arguments& arguments) {
      const at::Tensor* held = tensor(arguments[of]);
      const int64_t rank = held ? std::max<int64_t>(held->dim(), 1) : 1;
      const auto names = [rank, distinct](int64_t dim) {
        return dim >= (distinct ? 0 : -rank) && dim < rank;
      };
      const c10::IValue& value = arguments[list];
      if (value.isInt()) {
        return names(value.toInt());
      }
      if (!value.isIntList()) {
        return true;
      }
      auto all = value.toIntVector();
      if (!std::all_of(all.begin(), all.end(), names)) {
        return false;
      }
      std::sort(all.begin(), all.end());
      return !distinct || std::adjacent_find(all.begin(), all.end()) == all.end();
    });
  }

  // Whole numbers from LOW up to HIGH, which may be one of them or not.
  std::optional<Rule> values(bool including) {
    std::string name;
    std::string low_text;
    std::string high_text;
    words_ >> name >> low_text >> high_text;
    const auto at = argument(name);
    const auto low = product(low_text);
    const auto high = product(high_text);
    if (!at || !low || !high) {
      return std::nullopt;
    }
    return Rule([at = *at, low = *low, high = *high, including](const Arguments& arguments) {
      const at::Tensor* held = tensor(arguments[at]);
      // A GPU's kernels look themselves, and nobody waits for it here.
      if (!held || held->numel() == 0 || !held->device().is_cpu()) {
        return true;
      }
      if (!c10::isIntegralType(held->scalar_type(), false)) {
        return false;
      }
      const auto least = evaluate(low, arguments);
      const auto most = evaluate(high, arguments);
      const auto [smallest, largest] = at::aminmax(*held);
      return (!least || smallest.item<int64_t>() >= *least) &&
          (!most || largest.item<int64_t>() < *most + (including && *most < INT64_MAX ? 1 : 0));
    });
  }

  // column MATRIX N LOW HIGH: what is in its column N, from LOW up to HIGH.
  std::optional<Rule> column() {
    std::string name;
    int64_t number = 0;
    std::string low_text;
    std::string high_text;
    words_ >> name >> number >> low_text >> high_text;
    const auto at = argument(name);
    const auto low = product(low_text);
    const auto high = product(high_text);
    if (!at || !low || !high) {
      return std::nullopt;
    }
    return Rule([at = *at, number, low = *low, high = *high](const Arguments& arguments) {
      const at::Tensor* held = tensor(arguments[at]);
      if (!held || held->numel() == 0 || !held->device().is_cpu()) {
        return true;
      }
      const auto least = evaluate(low, arguments);
      const auto most = evaluate(high, arguments);
      if (held->dim() != 2 || number >= held->size(1) || c10::isComplexType(held->scalar_type()) ||
          !least || !most) {
        return false;
      }
      const auto [smallest, largest] = at::aminmax(held->select(1, number));
      // What is no number is in no range.
      return smallest.item<double>() >= static_cast<double>(*least) &&
          largest.item<double>() < static_cast<double>(*most);
    });
  }

  // sums TENSOR X: lengths, of which those of a row add up to X.
  std::optional<Rule> sums() {
    std::string name;
    std::string total_text;
    words_ >> name >> total_text;
    const auto at = argument(name);
    const auto total = product(total_text);
    if (!at || !total) {
      return std::nullopt;
    }
    return Rule([at = *at, total = *total](const Arguments& arguments) {
      const at::Tensor* held = tensor(arguments[at]);
      if (!held || !held->device().is_cpu()) {
        return true;
      }
      const auto wanted = evaluate(total, arguments);
      if (!c10::isIntegralType(held->scalar_type(), false) || held->dim() == 0 || !wanted) {
        return false;
      }
      // No length is longer than the whole, so their sum does not overflow.
      return held->numel() == 0 ||
          (held->ge(0).logical_and(held->le(*wanted)).all().item<bool>() &&
           held->to(at::kLong).sum(-1).eq(*wanted).all().item<bool>());
    });
  }

  // labels TARGETS LENGTHS N: as many of each row as its length says are from 0 up to N; what fills a
  // row up may be anything.
  std::optional<Rule> labels() {
    std::string targets_name;
    std::string lengths_name;
    std::string classes_text;
    words_ >> targets_name >> lengths_name >> classes_text;
    const auto targets = argument(targets_name);
    const auto lengths = argument(lengths_name);
    const auto classes = product(classes_text);
    if (!targets || !lengths || !classes) {
      return std::nullopt;
    }
    return Rule([targets = *targets, lengths = *lengths, classes = *classes](
                    const Arguments& arguments) {
      const at::Tensor* held = tensor(arguments[targets]);
      const auto most = evaluate(classes, arguments);
      if (!held || !held->device().is_cpu() || !most) {
        return true;
      }
      if (!c10::isIntegralType(held->scalar_type(), false) || held->dim() < 1 || held->dim() > 2) {
        return false;
      }
      const at::Tensor* counted = tensor(arguments[lengths]);
      const at::Tensor counts = counted ? counted->to(at::kLong).flatten()
          : arguments[lengths].isIntList()
          ? at::tensor(arguments[lengths].toIntVector(), at::kLong)
          : at::empty({0}, at::kLong);
      const int64_t longest = held->size(-1);
      if (counts.numel() > 0 &&
          !counts.ge(0).logical_and(counts.le(longest)).all().item<bool>()) {
        return false;
      }
      const at::Tensor good = held->ge(0).logical_and(held->lt(*most));
      if (held->dim() == 1) {
        return counts.sum().item<int64_t>() <= longest && good.all().item<bool>();
      }
      return counts.numel() == held->size(0) &&
          good.logical_or(at::arange(longest).ge(counts.unsqueeze(1))).all().item<bool>();
    });
  }

  std::optional<Rule> scale() {
    std::string name;
    std::string to_text;
    std::string from_text;
    words_ >> name >> to_text >> from_text;
    const auto at = argument(name);
    const auto to = product(to_text);
    const auto from = product(from_text);
    if (!at || !to || !from) {
      return std::nullopt;
    }
    return Rule([at = *at, to = *to, from = *from](const Arguments& arguments) {
      if (!arguments[at].isDouble()) {
        return true;
      }
      const auto larger = evaluate(to, arguments);
      const auto smaller = evaluate(from, arguments);
      return larger && smaller &&
          std::abs(static_cast<double>(*larger) -
                   static_cast<double>(*smaller) * arguments[at].toDouble()) <= 1;
    });
  }

  // windows TENSOR SIZES DIM SIZE STEP: sizes with one dimension cut into windows, which lie last.
  std::optional<Rule> windows() {
    std::vector<size_t> at;
    for (int i = 0; i < 5; i++) {
      std::string name;
      words_ >> name;
      const auto found = argument(name);
      if (!found) {
        return std::nullopt;
      }
      at.push_back(*found);
    }
    return Rule([at](const Arguments& arguments) {
      const at::Tensor* cut = tensor(arguments[at[0]]);
      if (!cut) {
        return true;
      }
      auto sizes = arguments[at[1]].toIntVector();
      const auto dims = static_cast<int64_t>(sizes.size());
      const int64_t size = arguments[at[3]].toInt();
      const int64_t step = arguments[at[4]].toInt();
      int64_t dim = arguments[at[2]].toInt();
      if (dims == 0) {
        // A number is cut as a row of one.
        return (dim == 0 || dim == -1) && size >= 0 && size <= 1 && step >= 1 &&
            cut->sizes() == c10::IntArrayRef({size});
      }
      dim += dim < 0 ? dims : 0;
      if (dim < 0 || dim >= dims || size < 0 || step < 1) {
        return false;
      }
      int64_t& whole = sizes[static_cast<size_t>(dim)];
      if (size > whole) {
        return false;
      }
      whole = (whole - size) / step + 1;
      sizes.push_back(size);
      return cut->sizes() == c10::IntArrayRef(sizes);
    });
  }

  // pairs TENSOR N: pivots of an LDL factor. A negative one stands twice, for a block of two rows.
  std::optional<Rule> pairs() {
    std::string name;
    std::string size_text;
    words_ >> name >> size_text;
    const auto at = argument(name);
    const auto size = product(size_text);
    if (!at || !size) {
      return std::nullopt;
    }
    return Rule([at = *at, size = *size](const Arguments& arguments) {
      const at::Tensor* held = tensor(arguments[at]);
      if (!held || !held->device().is_cpu()) {
        return true;
      }
      const auto n = evaluate(size, arguments);
      if (held->scalar_type() != at::kInt || held->dim() == 0 || held->size(-1) != n) {
        return false;
      }
      const at::Tensor flat = held->contiguous();
      const int* pivots = flat.const_data_ptr<int>();
      for (int64_t i = 0; i < flat.numel();) {
        const bool two = pivots[i] < 0;
        if (pivots[i] == 0 || std::abs(int64_t{pivots[i]}) > *n ||
            (two && (i % *n == *n - 1 || pivots[i + 1] != pivots[i]))) {
          return false;
        }
        i += two ? 2 : 1;
      }
      return true;
    });
  }

  std::optional<Rule> comparison(const std::string& left_text) {
    std::string sign;
    std::string right_text;
    words_ >> sign >> right_text;
    const auto left = product(left_text);
    const auto right = product(right_text);
    if (!left || !right) {
      return std::nullopt;
    }
    TORCH_INTERNAL_ASSERT(
        sign == "==" || sign == "<=" || sign == "<" || sign == "!=", "no sign: ", sign);
    return Rule([left = *left, right = *right, sign](const Arguments& arguments) {
      const auto a = evaluate(left, arguments);
      const auto b = evaluate(right, arguments);
      if (!a || !b) {
        return true;
      }
      return sign == "==" ? *a == *b : sign == "<=" ? *a <= *b : sign == "<" ? *a < *b : *a != *b;
    });
  }

  std::optional<Product> product(const std::string& text) {
    Product made;
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, '*');) {
      Factor factor;
      const char first = part.empty() ? ' ' : part[0];
      if (first == '-' || (first >= '0' && first <= '9')) {
        factor.number = std::stoll(part);
        made.push_back(factor);
        continue;
      }
      const auto dot = part.find('.');
      const auto at = argument(part.substr(0, dot));
      if (!at) {
        return std::nullopt;
      }
      factor.argument = *at;
      const std::string what = dot == std::string::npos ? "" : part.substr(dot + 1);
      factor.kind = what.empty()  ? Factor::Kind::Value
          : what == "dim"         ? Factor::Kind::Dim
          : what == "numel"       ? Factor::Kind::Numel
          : what == "len"         ? Factor::Kind::Len
          : what.rfind("at", 0) == 0 ? Factor::Kind::Item
          : what.rfind("before", 0) == 0 ? Factor::Kind::Before
                                  : Factor::Kind::Size;
      const bool of_argument = factor.kind == Factor::Kind::Size && what.size() > 4 &&
          std::isalpha(static_cast<unsigned char>(what[4])) != 0;
      if (of_argument) {
        const auto which = argument(what.substr(4));
        if (!which) {
          return std::nullopt;
        }
        factor.kind = Factor::Kind::SizeOf;
        factor.number = static_cast<int64_t>(*which);
      } else if (factor.kind == Factor::Kind::Size || factor.kind == Factor::Kind::Item ||
                 factor.kind == Factor::Kind::Before) {
        factor.number = std::stoll(what.substr(what.find_first_of("-0123456789")));
      }
      made.push_back(factor);
    }
    return made;
  }

  const c10::FunctionSchema& schema_;
  std::istringstream words_;
  std::string unknown_;
};

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(' ');
  const auto last = text.find_last_not_of(' ');
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

bool names(const std::string& pattern, const std::string& base, const std::string& full) {
  if (!pattern.empty() && pattern.back() == '*') {
    return base.compare(0, pattern.size() - 1, pattern, 0, pattern.size() - 1) == 0;
  }
  return pattern == base || pattern == full;
}

bool in_mask(uint64_t mask, int64_t value) {
  return value >= 0 && value < 64 && (mask >> value & 1) != 0;
}

// Numbers that stand for one of a few things, lists of a fixed length, tensors that must be there.
void check_by_type(const c10::Argument& argument, const c10::IValue& value, bool may_lack) {
  const c10::Type* type = argument.real_type().get();
  const bool optional = type->kind() == c10::TypeKind::OptionalType;
  if (optional) {
    type = type->expectRef<c10::OptionalType>().getElementType().get();
  }
  switch (type->kind()) {
    case c10::TypeKind::ScalarTypeType:
      TORCH_CHECK_VALUE(
          !value.isInt() || in_mask(DTYPE_MASK, value.toInt()),
          "`", argument.name(), "` is no dtype that Genie carries");
      return;
    case c10::TypeKind::LayoutType:
      TORCH_CHECK_NOT_IMPLEMENTED(
          !value.isInt() || value.toInt() == 0, "`", argument.name(), "` must be strided");
      return;
    case c10::TypeKind::MemoryFormatType:
      TORCH_CHECK_VALUE(
          !value.isInt() || in_mask(0xF, value.toInt()),
          "`", argument.name(), "` is no memory format");
      return;
    case c10::TypeKind::TensorType:
      TORCH_CHECK_VALUE(
          optional || may_lack || !value.isTensor() || value.toTensor().defined(),
          "`", argument.name(), "` is missing");
      return;
    case c10::TypeKind::ListType: {
      const auto fixed = argument.N();
      if (fixed && *fixed > 1 && !value.isNone()) {
        const auto& given = argument.default_value();
        const size_t n = length(value);
        TORCH_CHECK_VALUE(
            n == static_cast<size_t>(*fixed) || n == 1 ||
                (n == 0 && (argument.name() == "stride" ||
                            (given && !given->isNone() && length(*given) == 0))),
            "`", argument.name(), "` has ", n, " numbers, not ", *fixed);
      }
      // How large a tensor is to be is for the allocator to say.
      if (value.isIntList() && argument.name() != "size") {
        for (const int64_t number : value.toIntList()) {
          TORCH_CHECK_VALUE(
              number >= -NUMBER_MAX && number <= NUMBER_MAX,
              "`", argument.name(), "` has ", number, ", which no size can be");
        }
      }
      if (value.isTensorList()) {
        for (const c10::IValue& item : value.toListRef()) {
          TORCH_CHECK_VALUE(
              item.toTensor().defined(), "`", argument.name(), "` has a tensor that is missing");
        }
      }
      return;
    }
    default:
      return;
  }
}

// What a view reaches must be bytes of its storage.
bool is_inside(const at::Tensor& tensor) {
  if (tensor.layout() != c10::kStrided || !tensor.has_storage()) {
    return true;
  }
  uint64_t reach = 0;
  bool valid = tensor.storage_offset() >= 0;
  for (int64_t i = 0; i < tensor.dim(); i++) {
    if (tensor.size(i) == 0) {
      return true;
    }
    uint64_t step = 0;
    valid &= tensor.size(i) > 0 && tensor.stride(i) >= 0 &&
        !__builtin_mul_overflow(
            static_cast<uint64_t>(tensor.size(i) - 1),
            static_cast<uint64_t>(tensor.stride(i)),
            &step) &&
        !__builtin_add_overflow(reach, step, &reach);
  }
  valid &= !__builtin_add_overflow(
      reach, static_cast<uint64_t>(tensor.storage_offset()) + 1, &reach);
  valid &= !__builtin_mul_overflow(reach, static_cast<uint64_t>(tensor.itemsize()), &reach);
  return valid && reach <= tensor.storage().nbytes();
}

} // namespace

class Checks {
 public:
  struct Stated {
    std::string clause;
    Rule rule;
  };
  std::string name;
  const c10::FunctionSchema* schema = nullptr;
  std::vector<Stated> stated;
  bool may_lack = false;
  std::vector<size_t> laid_out;
};

std::shared_ptr<const Checks> checks_of(
    const std::string& name, const c10::FunctionSchema& schema) {
  auto made = std::make_shared<Checks>();
  made->name = name;
  made->schema = &schema;
  const std::string full(plain_name(name));
  const std::string base = full.substr(0, full.find('.'));
  std::istringstream lines(CHECKS_TABLE);
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(": ");
    if (line.empty() || line[0] == '#' || colon == std::string::npos) {
      continue;
    }
    std::istringstream patterns(line.substr(0, colon));
    bool meant = false;
    for (std::string pattern; patterns >> pattern;) {
      // What is said of all is said of ATen's.
      const bool is_whole = pattern.find("::") != std::string::npos;
      meant |= is_whole != is_atens(name) && names(pattern, base, full);
    }
    if (!meant) {
      continue;
    }
    std::istringstream clauses(line.substr(colon + 1, line.find('#') - colon - 1));
    for (std::string clause; std::getline(clauses, clause, ';');) {
      clause = trimmed(clause);
      if (clause == "may lack") {
        made->may_lack = true;
        continue;
      }
      if (clause.rfind("laid out ", 0) == 0) {
        for (size_t i = 0; i < schema.arguments().size(); i++) {
          if (schema.arguments()[i].name() == clause.substr(9)) {
            made->laid_out.push_back(i);
          }
        }
        continue;
      }
      if (auto rule = Reader(schema, clause).rule()) {
        made->stated.push_back({clause, std::move(*rule)});
      }
    }
  }
  return made;
}

void lay_out(const Checks& checks, torch::jit::Stack& arguments) {
  for (const size_t at : checks.laid_out) {
    if (const at::Tensor* held = tensor(arguments[at])) {
      arguments[at] = held->contiguous();
    }
  }
}

void check_arguments(const Checks& checks, const torch::jit::Stack& arguments) {
  const auto& declared = checks.schema->arguments();
  for (size_t i = 0; i < declared.size(); i++) {
    check_by_type(declared[i], arguments[i], checks.may_lack);
    if (declared[i].is_out()) {
      TORCH_CHECK(
          every_tensor(arguments[i], [](const at::Tensor& one) { return !overlaps(one); }),
          checks.name, ": a result overlaps itself");
    }
  }
  for (const auto& [clause, rule] : checks.stated) {
    TORCH_CHECK_VALUE(
        rule(arguments),
        checks.name, ": its kernel needs `", clause, "`, which these arguments break");
  }
}

void check_results(const torch::jit::Stack& results, const torch::jit::Stack& arguments) {
  for (const auto* values : {&results, &arguments}) {
    for (const c10::IValue& value : *values) {
      TORCH_CHECK(
          every_tensor(value, is_inside), "a result reaches past the bytes of its storage");
    }
  }
}

} // namespace genie
