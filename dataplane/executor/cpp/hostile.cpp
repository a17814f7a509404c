#include "hostile.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <sstream>

#include "arguments.h"
#include "checks.h"
#include "invoke.h"
#include "results.h"
#include "view.h"

namespace {

constexpr size_t PAGE = 4096;
constexpr size_t BUDGET = 512U << 20;
constexpr unsigned char CANARY = 0xA7;

// Blocks between two pages that nobody may touch. The bytes touch the guard behind them (`at_end`)
// or the one before them; what is left of their page is filled, and looked at when they are freed.
struct Block {
  char* map;
  size_t map_bytes;
  char* data;
  size_t bytes;
};

std::mutex lock;
std::map<void*, Block> blocks;
size_t used = 0;
bool at_end = true;
bool spoiled = false;
char* fault_text = nullptr;
size_t fault_room = 0;

bool intact(const Block& block) {
  const char* first = block.map + PAGE;
  const char* last = block.map + block.map_bytes - PAGE;
  const auto filled = [](const char* from, const char* to) {
    return std::all_of(from, to, [](char c) { return static_cast<unsigned char>(c) == CANARY; });
  };
  return filled(first, block.data) && filled(block.data + block.bytes, last);
}

void release(void* data) {
  if (!data) {
    return;
  }
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = blocks.find(data);
  if (found == blocks.end()) {
    spoiled = true;
    return;
  }
  spoiled |= !intact(found->second);
  used -= found->second.map_bytes;
  munmap(found->second.map, found->second.map_bytes);
  blocks.erase(found);
}

class GuardedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) {
      return {nullptr, nullptr, &release, c10::kCPU};
    }
    const std::lock_guard<std::mutex> guard(lock);
    const size_t inner = (bytes + PAGE - 1) / PAGE * PAGE;
    TORCH_CHECK_WITH(
        OutOfMemoryError, bytes < BUDGET && used + inner < BUDGET, "out of memory: the budget");
    void* raw = mmap(
        nullptr, inner + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK_WITH(OutOfMemoryError, raw != MAP_FAILED, "out of memory: no mapping");
    auto* map = static_cast<char*>(raw);
    mprotect(map + PAGE, inner, PROT_READ | PROT_WRITE);
    // Vector instructions of some kernels want what an allocator gives: 16 bytes.
    char* data = map + PAGE + (at_end ? (inner - bytes) / 16 * 16 : 0);
    std::memset(map + PAGE, CANARY, static_cast<size_t>(data - map) - PAGE);
    std::memset(data + bytes, CANARY, static_cast<size_t>(map + PAGE + inner - data) - bytes);
    blocks[data] = {map, inner + 2 * PAGE, data, bytes};
    used += inner + 2 * PAGE;
    return {data, data, &release, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

void say_fault(int number, siginfo_t* info, void*) {
  const auto* address = static_cast<const char*>(info->si_addr);
  const char* where = "";
  if (number == SIGSEGV || number == SIGBUS) {
    where = ", outside of every tensor";
    // The process ends: whoever holds the lock does not go on.
    for (const auto& [data, block] : blocks) {
      if (address >= block.map && address < block.map + block.map_bytes) {
        where = address < block.data ? ", before a tensor" : ", behind a tensor";
      }
    }
  }
  snprintf(fault_text, fault_room, "signal %d%s", number, where);
  signal(number, SIG_DFL);
  raise(number);
}

class Draw {
 public:
  explicit Draw(uint64_t seed) : engine_(seed) {}
  uint64_t below(uint64_t n) {
    return engine_() % n;
  }
  bool chance(unsigned percent) {
    return below(100) < percent;
  }
  template <typename T, size_t N>
  T of(const T (&items)[N]) {
    return items[below(N)];
  }

 private:
  std::mt19937_64 engine_;
};

using Shape = std::vector<int64_t>;

constexpr int64_t LARGE = std::numeric_limits<int64_t>::max();
constexpr int64_t SMALL_NUMBERS[] = {0, 1, 1, 2, 2, 3, 3, 4, 5, 8};
constexpr int64_t BAD_NUMBERS[] = {
    -1, -1, -2, -3, 6, 7, 9, 16, 17, 31, 64, 100, 1000, -100, 127, 128, 255, 256, 65536,
    int64_t{1} << 31, (int64_t{1} << 31) - 1, -(int64_t{1} << 31), int64_t{1} << 32,
    int64_t{1} << 40, int64_t{1} << 62, LARGE, LARGE - 1, -LARGE, -LARGE - 1};
constexpr double FLOATS[] = {
    0.0, 1.0, 0.5, -1.0, 2.0, 0.1, 1e-8, -0.5, 1e10, -1e10, 1e300, NAN, INFINITY, -INFINITY, 3.7};
constexpr c10::ScalarType DTYPES[] = {
    at::kFloat, at::kFloat, at::kDouble, at::kLong, at::kLong, at::kInt, at::kShort, at::kChar,
    at::kByte, at::kBool, at::kHalf, at::kBFloat16, at::kComplexFloat, at::kComplexDouble};
constexpr const char* WORDS[] = {
    "none", "tanh", "mean", "sum", "max", "min", "prod", "amax", "amin", "linear", "nearest",
    "reflect", "replicate", "circular", "constant", "zeros", "same", "valid", "bilinear", "L",
    "U", "N", "T", "fro", "nuc", "reduced", "complete", "r", "ij", "xy", "floor", "trunc",
    "gelsy", "gelsd", "gels", "gelss", "gesvd", "ij,jk->ik", "...", "ii", "left", "junk", "",
    "forward", "backward", "ortho", "lower", "higher", "midpoint", "float32", "gesvdj"};

class Caller {
 public:
  Caller(const genie::Operator& op, uint64_t seed) : op_(op), draw_(seed) {
    calm_ = draw_.chance(50);
    common_ = shape();
    common_dtype_ = draw_.chance(70) ? (draw_.chance(70) ? at::kFloat : at::kDouble) : dtype();
    at_end = draw_.chance(70);
  }

  torch::jit::Stack stack(std::string& text) {
    torch::jit::Stack made;
    std::ostringstream words;
    const auto& schema = op_.handle.schema();
    for (size_t i = 0; i < op_.arguments.size(); i++) {
      const auto& argument = schema.arguments()[i];
      made.push_back(value(op_.arguments[i], argument));
      words << (i ? ", " : "") << argument.name() << '=';
      describe(words, made.back());
    }
    text = words.str();
    return made;
  }

 private:
  int64_t number() {
    return draw_.chance(calm_ ? 88 : 60) ? draw_.of(SMALL_NUMBERS) : draw_.of(BAD_NUMBERS);
  }
  c10::ScalarType dtype() {
    return draw_.of(DTYPES);
  }
  Shape shape() {
    constexpr int64_t sizes[] = {1, 2, 2, 3, 3, 4, 4, 5, 6, 8, 8, 16, 17, 33};
    Shape made;
    const size_t rank = draw_.chance(60) ? 2 + draw_.below(3) : draw_.below(6);
    for (size_t i = 0; i < rank; i++) {
      made.push_back(draw_.chance(4) ? 0 : draw_.of(sizes));
    }
    return made;
  }
  Shape near_common() {
    const auto kind = draw_.below(100);
    if (kind < (calm_ ? 60U : 40U)) {
      return common_;
    }
    Shape made = common_;
    if (kind < 75 && !made.empty()) {
      switch (draw_.below(6)) {
        case 0:
          return {made[draw_.below(made.size())]};
        case 1:
          made.pop_back();
          return made;
        case 2:
          made[draw_.below(made.size())] = draw_.of(SMALL_NUMBERS);
          return made;
        case 3:
          std::reverse(made.begin(), made.end());
          return made;
        case 4:
          made.push_back(draw_.of(SMALL_NUMBERS));
          return made;
        default:
          std::fill(made.begin(), made.end(), 1);
          return made;
      }
    }
    return shape();
  }

  at::Tensor tensor(const std::string& name) {
    static constexpr const char* integers[] = {
        "ind", "offset", "target", "length", "pivot", "rois", "mask", "step", "bag", "batch_sizes",
        "sobol", "boundaries", "sorter", "length", "quasi"};
    const bool wants_integers = std::any_of(std::begin(integers), std::end(integers), [&](auto* part) {
      return name.find(part) != std::string::npos;
    });
    const bool wants_int = name.find("info") != std::string::npos || name.find("pivots") != std::string::npos;
    const auto type = wants_int && draw_.chance(75) ? at::kInt : draw_.chance(85)
        ? (wants_integers ? (draw_.chance(75) ? at::kLong : at::kInt) : common_dtype_)
        : dtype();
    const Shape sizes = near_common();
    Shape strides(sizes.size());
    int64_t step = 1;
    for (size_t i = sizes.size(); i-- > 0;) {
      strides[i] = step;
      step *= std::max<int64_t>(sizes[i], 1);
    }
    int64_t offset = 0;
    switch (draw_.below(14)) {
      case 0: // Transposed.
        std::reverse(strides.begin(), strides.end());
        break;
      case 1: // Expanded.
        if (!strides.empty()) {
          strides[draw_.below(strides.size())] = 0;
        }
        break;
      case 2: // Overlapping.
        if (!strides.empty()) {
          strides[draw_.below(strides.size())] = 1;
        }
        break;
      case 3: // A part of something larger.
        offset = static_cast<int64_t>(draw_.below(5));
        for (auto& stride : strides) {
          stride *= 2;
        }
        break;
      default:
        break;
    }
    int64_t last = offset;
    bool empty = false;
    for (size_t i = 0; i < sizes.size(); i++) {
      last += std::max<int64_t>(sizes[i] - 1, 0) * strides[i];
      empty |= sizes[i] == 0;
    }
    const int64_t count = empty ? 0 : last + 1;
    const size_t bytes = static_cast<size_t>(count) * c10::elementSize(type);
    GenieStorage* storage = nullptr;
    TORCH_CHECK(genie_storage_new(bytes, &storage) == 0, "no storage");
    fill(storage, type, count);
    GenieView view{storage, 0, static_cast<uint8_t>(type), empty ? 0 : offset,
                   sizes.data(), strides.data(), sizes.size()};
    at::Tensor made = genie::make_view(view);
    genie_storage_free(storage);
    return made;
  }

  void fill(GenieStorage* storage, c10::ScalarType type, int64_t count) {
    void* data = genie::impl(storage)->mutable_data();
    const auto style = draw_.below(calm_ ? 6 : 10);
    for (int64_t i = 0; i < count; i++) {
      int64_t whole = static_cast<int64_t>(draw_.below(4));
      double real = static_cast<double>(draw_.below(1000)) / 500.0 - 1.0;
      if (style == 6 || (style == 7 && draw_.chance(20))) {
        whole = draw_.of(BAD_NUMBERS);
        real = draw_.of(FLOATS);
      } else if (style == 8) {
        whole = LARGE >> draw_.below(40);
        real = NAN;
      } else if (style == 9) {
        whole = -static_cast<int64_t>(draw_.below(100));
        real = static_cast<double>(whole) * 1e6;
      } else if (style == 5) {
        whole = i;
      }
      put(data, type, i, whole, real);
    }
  }

  static void put(void* data, c10::ScalarType type, int64_t i, int64_t whole, double real) {
    switch (type) {
      case at::kFloat: static_cast<float*>(data)[i] = static_cast<float>(real); break;
      case at::kDouble: static_cast<double*>(data)[i] = real; break;
      case at::kLong: static_cast<int64_t*>(data)[i] = whole; break;
      case at::kInt: static_cast<int32_t*>(data)[i] = static_cast<int32_t>(whole); break;
      case at::kShort: static_cast<int16_t*>(data)[i] = static_cast<int16_t>(whole); break;
      case at::kChar: static_cast<int8_t*>(data)[i] = static_cast<int8_t>(whole); break;
      case at::kByte: static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(whole); break;
      case at::kBool: static_cast<uint8_t*>(data)[i] = whole & 1; break;
      case at::kHalf: static_cast<c10::Half*>(data)[i] = static_cast<float>(real); break;
      case at::kBFloat16: static_cast<c10::BFloat16*>(data)[i] = static_cast<float>(real); break;
      case at::kComplexFloat:
        static_cast<c10::complex<float>*>(data)[i] = {static_cast<float>(real), 1};
        break;
      default: static_cast<c10::complex<double>*>(data)[i] = {real, 1}; break;
    }
  }

  at::Tensor sometimes_tensor(const std::string& name, unsigned percent) {
    return draw_.chance(percent) ? at::Tensor() : tensor(name);
  }

  size_t list_length(const c10::Argument& argument) {
    const auto fixed = argument.N();
    if (fixed && draw_.chance(80)) {
      return static_cast<size_t>(std::max(*fixed, 0));
    }
    return draw_.chance(50) ? common_.size() : draw_.below(6);
  }

  at::Scalar scalar() {
    switch (draw_.below(5)) {
      case 0: return draw_.of(FLOATS);
      case 1: return draw_.chance(50);
      case 2: return draw_.chance(80) ? c10::Scalar(number()) : c10::Scalar(c10::complex<double>(1, 2));
      default: return number();
    }
  }

  c10::IValue value(const genie::Argument& wanted, const c10::Argument& argument) {
    if (wanted.has_default && draw_.chance(25)) {
      return wanted.default_value;
    }
    if (wanted.optional && draw_.chance(30)) {
      return {};
    }
    const std::string& name = argument.name();
    switch (wanted.kind) {
      case genie::ArgKind::Tensor:
        return sometimes_tensor(name, wanted.optional ? 0 : 2);
      case genie::ArgKind::TensorList: {
        c10::List<at::Tensor> list;
        for (size_t n = draw_.below(4) + draw_.chance(80); n > 0; n--) {
          list.push_back(sometimes_tensor(name, 2));
        }
        return list;
      }
      case genie::ArgKind::OptionalTensorList: {
        c10::List<std::optional<at::Tensor>> list;
        for (size_t n = draw_.below(5); n > 0; n--) {
          list.push_back(draw_.chance(25) ? std::nullopt : std::optional(tensor(name)));
        }
        return list;
      }
      case genie::ArgKind::Int:
        return number();
      case genie::ArgKind::Enum:
        return draw_.chance(70) ? static_cast<int64_t>(draw_.below(8))
                                : static_cast<int64_t>(draw_.below(256)) - 128;
      case genie::ArgKind::Double:
        return draw_.of(FLOATS);
      case genie::ArgKind::Bool:
        return draw_.chance(50);
      case genie::ArgKind::Scalar:
        return scalar();
      case genie::ArgKind::String:
        return std::string(draw_.of(WORDS));
      case genie::ArgKind::IntList: {
        c10::List<int64_t> list;
        const size_t n = list_length(argument);
        const bool as_common = draw_.chance(25) && n == common_.size();
        for (size_t i = 0; i < n; i++) {
          list.push_back(as_common ? common_[i] : number());
        }
        return list;
      }
      case genie::ArgKind::DoubleList: {
        c10::List<double> list;
        for (size_t n = list_length(argument); n > 0; n--) {
          list.push_back(draw_.of(FLOATS));
        }
        return list;
      }
      case genie::ArgKind::BoolList: {
        c10::List<bool> list;
        for (size_t n = list_length(argument); n > 0; n--) {
          list.push_back(draw_.chance(60));
        }
        return list;
      }
      case genie::ArgKind::ScalarList: {
        c10::List<at::Scalar> list;
        for (size_t n = draw_.below(5); n > 0; n--) {
          list.push_back(scalar());
        }
        return list;
      }
      case genie::ArgKind::Device:
        return c10::Device(c10::kCPU);
      case genie::ArgKind::Generator:
        return at::detail::createCPUGenerator(7);
      default:
        return {};
    }
  }

  static void describe(std::ostream& words, const c10::IValue& value) {
    if (value.isTensor()) {
      const auto& tensor = value.toTensor();
      if (!tensor.defined()) {
        words << "undefined";
        return;
      }
      words << tensor.scalar_type() << tensor.sizes();
      if (!tensor.is_contiguous()) {
        words << "/" << tensor.strides();
      }
      if (c10::isIntegralType(tensor.scalar_type(), true) && tensor.numel() > 0) {
        words << '{' << std::to_string(tensor.flatten().min().item<int64_t>()) << ".."
              << std::to_string(tensor.flatten().max().item<int64_t>()) << '}';
      }
    } else if (value.isList() && !value.isIntList() && !value.isDoubleList() && !value.isBoolList()) {
      words << '[';
      for (const auto& item : value.toListRef()) {
        describe(words, item);
        words << ' ';
      }
      words << ']';
    } else {
      words << value;
    }
  }

  const genie::Operator& op_;
  Draw draw_;
  bool calm_;
  Shape common_;
  c10::ScalarType common_dtype_;
};

bool all_intact() {
  const std::lock_guard<std::mutex> guard(lock);
  return !spoiled && std::all_of(blocks.begin(), blocks.end(), [](const auto& block) {
    return intact(block.second);
  });
}

// Every byte that a result says it has.
void read_all(const torch::jit::Stack& results) {
  for (const auto& result : results) {
    if (result.isTensor() && result.toTensor().defined() &&
        result.toTensor().numel() < (1 << 24)) {
      result.toTensor().clone();
    }
  }
}

} // namespace

extern "C" {

int genie_hostile_start(uint32_t threads, char* fault, size_t room) {
  static GuardedAllocator allocator;
  fault_text = fault;
  fault_room = room;
  const int code = genie_start(-1, threads);
  c10::SetCPUAllocator(&allocator, /*priority=*/255);
  struct sigaction action {};
  action.sa_sigaction = &say_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  static char stack[64 << 10];
  const stack_t other{stack, 0, sizeof stack};
  sigaltstack(&other, nullptr);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    sigaction(number, &action, nullptr);
  }
  return code;
}

int genie_hostile_call(
    const char* name, const char* overload, uint64_t seed, char* text, size_t room) {
  const GenieOperator* found = nullptr;
  if (genie_operator_find(name, overload, &found) != 0) {
    return GENIE_UNKNOWN;
  }
  const auto& op = *reinterpret_cast<const genie::Operator*>(found);
  int outcome = GENIE_RAISED;
  {
    torch::jit::Stack stack;
    std::string words;
    if (genie::guarded([&] { stack = Caller(op, seed).stack(words); }) != 0) {
      return GENIE_UNKNOWN;
    }
    snprintf(text, room, "%s", words.c_str());
    if (genie::guarded([&] { genie::check_arguments(*op.checks, stack); }) != 0) {
      return GENIE_CHECKED;
    }
    const int code = genie::guarded([&] {
      genie::invoke(op, GenieCall{}, stack);
      read_all(stack);
    });
    outcome = code == 0 ? GENIE_RAN : GENIE_RAISED;
  }
  return all_intact() ? outcome : GENIE_CANARY;
}

} // extern "C"
