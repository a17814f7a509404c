// The boxed kernel behind nearly every operator: encode the call, append it to the session's log,
// and make result tensors of the shapes that the recorder remembers.
#include "record.h"

#include <ATen/EmptyTensor.h>
#include <ATen/SequenceNumber.h>
#include <ATen/core/List.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <utility>

#include "allocator.h"
#include "encode.h"
#include "errors.h"
#include "fallback.h"
#include "generator.h"
#include "infer.h"
#include "long.h"
#include "out.h"
#include "profile.h"
#include "replay/taping.h"
#include "skeleton.h"
#include "triggers.h"

namespace genie {
namespace {

static_assert(out::COUNT == 4, "a result tag is new: say here what it makes");

// Walks a result skeleton and makes the tensors it names.
class ResultReader {
 public:
  ResultReader(const GenieResults& results, GenieStorage first_fresh, const Encoder& encoder)
      : skeleton_(results.skeleton),
        end_(results.skeleton + results.skeleton_len),
        params_(results.params),
        params_end_(results.params + results.n_params),
        next_fresh_(first_fresh),
        encoder_(encoder) {}

  at::Tensor tensor() {
    const Item item = next();
    switch (item.tag) {
      case out::NONE:
        return {};
      case out::FRESH: {
        const auto dtype = static_cast<c10::ScalarType>(item.fields[0]);
        const c10::IntArrayRef sizes(item.params, item.n);
        const c10::IntArrayRef strides(item.params + item.n, item.n);
        const size_t nbytes =
            at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype));
        return make_tensor(
            adopt_storage(next_fresh_++, nbytes, encoder_.device()), dtype, sizes, strides);
      }
      case out::ALIAS:
        return at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::
                              reclaim_copy(encoder_.tensor(item.n)));
      default:
        TORCH_INTERNAL_ASSERT(false, "an unknown result tag");
    }
  }

  c10::List<at::Tensor> tensors() {
    const Item item = next();
    TORCH_INTERNAL_ASSERT(item.tag == out::LIST);
    c10::List<at::Tensor> list;
    list.reserve(item.n);
    for (size_t i = 0; i < item.n; ++i) {
      list.push_back(tensor());
    }
    return list;
  }

  // What next_item asks for.
  const uint8_t* bytes(size_t n) {
    TORCH_INTERNAL_ASSERT(
        static_cast<size_t>(end_ - skeleton_) >= n, "a result skeleton that ends early");
    skeleton_ += n;
    return skeleton_ - n;
  }
  const int64_t* params(size_t n) {
    TORCH_INTERNAL_ASSERT(
        static_cast<size_t>(params_end_ - params_) >= n, "result numbers that end early");
    params_ += n;
    return params_ - n;
  }
  const int64_t* data(size_t) {
    TORCH_INTERNAL_ASSERT(false, "a result with data");
  }

 private:
  Item next() {
    Item item;
    TORCH_INTERNAL_ASSERT(next_item(*this, RESULTS, item), "an unknown result tag");
    return item;
  }

  const uint8_t* skeleton_;
  const uint8_t* end_;
  const int64_t* params_;
  const int64_t* params_end_;
  GenieStorage next_fresh_;
  const Encoder& encoder_;
};

// Results that are not tensors, which come back from a synchronous call.
class ValueReader {
 public:
  explicit ValueReader(const GenieSyncResults& results)
      : skeleton_(results.value_skeleton),
        end_(results.value_skeleton + results.value_skeleton_len),
        data_(results.value_data),
        data_end_(results.value_data + results.n_value_data) {}

  c10::IValue next() {
    Item item;
    TORCH_CHECK(
        next_item(*this, ARGUMENTS, item),
        kDeviceName,
        ": the node sent a result of an unknown kind");
    switch (item.tag) {
      case tag::NONE:
        return {};
      case tag::TRUE:
      case tag::SCALAR_TRUE:
        return true;
      case tag::FALSE:
      case tag::SCALAR_FALSE:
        return false;
      case tag::SCALAR_INT:
        return *item.data;
      case tag::DOUBLE:
      case tag::SCALAR_DOUBLE:
        return real(item.data[0]);
      case tag::SCALAR_COMPLEX:
        return c10::IValue(c10::complex<double>(real(item.data[0]), real(item.data[1])));
      default:
        TORCH_CHECK(false, kDeviceName, ": the node sent a result that is no number");
    }
  }

  // What next_item asks for.
  const uint8_t* bytes(size_t n) {
    TORCH_CHECK(
        static_cast<size_t>(end_ - skeleton_) >= n, kDeviceName, ": the node sent too few results");
    skeleton_ += n;
    return skeleton_ - n;
  }
  const int64_t* data(size_t n) {
    TORCH_CHECK(
        static_cast<size_t>(data_end_ - data_) >= n, kDeviceName, ": the node sent too few numbers");
    data_ += n;
    return data_ - n;
  }
  const int64_t* params(size_t) {
    TORCH_CHECK(false, kDeviceName, ": the node sent a result with sizes");
  }

 private:
  static double real(int64_t bits) {
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  const uint8_t* skeleton_;
  const uint8_t* end_;
  const int64_t* data_;
  const int64_t* data_end_;
};

Arguments top(const Operator& op, const torch::jit::Stack& stack) {
  const size_t n = op.arguments.size();
  return Arguments(stack.data() + (stack.size() - n), n);
}

// Replaces the arguments by the results. `value` gives those that are not tensors.
template <typename Value>
void push_results(
    const Operator& op,
    torch::jit::Stack& stack,
    ResultReader reader,
    const Value& value) {
  const size_t n_arguments = op.arguments.size();
  if (C10_LIKELY(op.returns.size() == 1 && op.returns[0].kind == ReturnKind::Tensor)) {
    at::Tensor result = reader.tensor();
    torch::jit::drop(stack, n_arguments);
    stack.emplace_back(std::move(result));
    return;
  }
  c10::SmallVector<c10::IValue, 4> results;
  for (size_t i = 0; i < op.returns.size(); ++i) {
    switch (op.returns[i].kind) {
      case ReturnKind::Tensor:
        results.emplace_back(reader.tensor());
        break;
      case ReturnKind::TensorList:
        results.emplace_back(reader.tensors());
        break;
      case ReturnKind::Value:
        results.emplace_back(value(i));
        break;
    }
  }
  torch::jit::drop(stack, n_arguments);
  for (c10::IValue& result : results) {
    stack.emplace_back(std::move(result));
  }
}

// Encodes a call and appends it; on GENIE_OK its results are on the stack.
GenieStatus append(const Operator& op, torch::jit::Stack& stack, const Seeds& seeds) {
  const EncoderLease e;
  e->encode(op, top(op, stack), seeds);
  GenieResults results{};
  GenieStorage first_fresh = 0;
  const GenieStatus status = genie_record(&e->call(), &results, &first_fresh);
  if (C10_LIKELY(status == GENIE_OK)) {
    if (replay::is_noticing()) {
      replay::notice_call(
          e->call(), results, first_fresh, op.has_generator || op.draws(top(op, stack)));
    }
    push_results(op, stack, ResultReader(results, first_fresh, *e), [&](size_t i) {
      return op.local_value(i, top(op, stack));
    });
    if (replay::is_noticing()) {
      replay::notice_all_made();
    }
  }
  return status;
}

void call_sync(
    const Operator& op,
    torch::jit::Stack& stack,
    const Seeds& seeds,
    bool is_like_all = false) {
  replay::notice_unforeseeable();
  const EncoderLease e;
  e->encode(op, top(op, stack), seeds);
  GenieSyncResults results{};
  check(genie_call_sync(&e->call(), &results));
  if (is_like_all) {
    check(genie_learn(&e->call(), &results.results));
  }
  ValueReader values(results);
  push_results(
      op, stack, ResultReader(results.results, results.first_fresh, *e), [&](size_t /*i*/) {
        return values.next();
      });
}

// Tells the recorder the result shapes of a call. False if only the node can tell: then the call is
// done, and its results are on the stack.
bool learn(const Operator& op, torch::jit::Stack& stack, const Seeds& seeds) {
  ResultBuilder results;
  const Shapes shapes = infer(op, top(op, stack), results);
  if (shapes == Shapes::AskNode || shapes == Shapes::AskNodeOnce) {
    if (!op.has_out) {
      call_sync(op, stack, seeds, shapes == Shapes::AskNodeOnce);
    } else if (op.functional.has_value()) {
      fill_out(op, stack);
    } else {
      // The node cannot resize a tensor of ours; PyTorch's fallback can.
      run_on_cpu(op.handle, &stack);
    }
    return false;
  }
  // Inference may have resized an `out=` tensor, or run Python, which may have recorded calls.
  const EncoderLease e;
  e->encode(op, top(op, stack), seeds);
  const GenieResults learned = results.results();
  check(genie_learn(&e->call(), &learned));
  return true;
}

// A call that was not appended at once.
C10_NOINLINE void append_later(
    const Operator& op,
    torch::jit::Stack& stack,
    const Seeds& seeds,
    GenieStatus status) {
  // In a wait for room others may fill the bounded memory of shapes, or start another session.
  constexpr int kLearnt = 16;
  for (int learnt = 0; status != GENIE_OK; status = append(op, stack, seeds)) {
    switch (status) {
      case GENIE_OK:
        return;
      case GENIE_NO_ROOM:
        check(genie_wait_for_room());
        break;
      case GENIE_UNKNOWN_SHAPE:
        TORCH_INTERNAL_ASSERT(++learnt < kLearnt, "the recorder forgets a shape at once");
        if (!learn(op, stack, seeds)) {
          return;
        }
        break;
      case GENIE_ERROR:
        throw_last_error();
    }
  }
}

// The seed of a call, if it draws one.
int64_t draw_seed(const Operator& op, Arguments arguments) {
  if (C10_LIKELY(!op.has_generator && !op.draws(arguments))) {
    return 0;
  }
  c10::DeviceIndex device = current_device();
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (op.arguments[i].kind == ArgKind::Generator && !arguments[i].isNone()) {
      return draw(arguments[i].toGenerator());
    }
    if (arguments[i].isTensor() && is_remote(arguments[i].toTensor())) {
      device = arguments[i].toTensor().device().index();
    } else if (arguments[i].isDevice()) {
      device = index_or_current(arguments[i].toDevice());
    }
  }
  return draw(default_generator(device));
}

// The functor that the dispatcher holds for one operator.
class Recorder final : public c10::OperatorKernel {
 public:
  void operator()(
      const c10::OperatorHandle& handle,
      c10::DispatchKeySet /*keys*/,
      torch::jit::Stack* stack) {
    check(genie_usable());
    note_beginning();
    const Operator* op = operator_.load(std::memory_order_acquire);
    if (C10_UNLIKELY(op == nullptr)) {
      op = prepare(handle);
    }
    record(*op, *stack);
  }

  ~Recorder() override {
    delete operator_.load(std::memory_order_relaxed);
  }

 private:
  // Threads may race here: one result wins, the others are equal.
  C10_NOINLINE const Operator* prepare(const c10::OperatorHandle& handle) {
    auto made = std::make_unique<const Operator>(handle);
    const Operator* expected = nullptr;
    if (operator_.compare_exchange_strong(
            expected, made.get(), std::memory_order_acq_rel, std::memory_order_acquire)) {
      return made.release();
    }
    return expected;
  }

  std::atomic<const Operator*> operator_{nullptr};
};

}  // namespace

void record(const Operator& op, torch::jit::Stack& stack) {
  if (op.prepare != nullptr) {
    op.prepare(op, stack.data() + (stack.size() - op.arguments.size()));
  }
  if (C10_UNLIKELY(op.has_lists)) {
    if (is_long(op, top(op, stack)) && record_in_parts(op, stack)) {
      return;
    }
    if (genie_is_pool() != 0 && record_by_place(op, stack)) {
      return;
    }
  }
  // The autograd kernel above this call made its node just before: it holds the last number given.
  Seeds seeds;
  seeds.sequence_nr = static_cast<int64_t>(at::sequence_number::peek()) - 1;
  seeds.value = draw_seed(op, top(op, stack));
  if (C10_UNLIKELY(op.always_sync)) {
    call_sync(op, stack, seeds);
    return;
  }
  const GenieStatus status = append(op, stack, seeds);
  if (C10_UNLIKELY(status != GENIE_OK)) {
    append_later(op, stack, seeds, status);
  }
  wait_if_trigger(op);
}

torch::CppFunction recorder_kernel() {
  return torch::CppFunction::makeFromBoxedFunctor(std::make_unique<Recorder>());
}

const Operator& operator_named(const char* name, const char* overload) {
  // Kept for the life of the process, like the dispatcher's own entry.
  return *new Operator(c10::Dispatcher::singleton().findSchemaOrThrow(name, overload));
}

at::Tensor record_one(const Operator& op, torch::jit::Stack arguments) {
  record(op, arguments);
  return arguments.back().toTensor();
}

}  // namespace genie
