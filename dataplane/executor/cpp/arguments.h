// From a skeleton and its streams to a stack of IValues, by the operator's schema.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <string>
#include <vector>

#include "checks.h"
#include "dispatch.h"
#include "error.h"
#include "schema_kind.h"
#include "skeleton.h"
#include "work.h"

namespace genie {

struct Argument {
  // What its IValue must hold.
  ArgKind kind;
  bool optional;
  c10::IValue default_value;
  bool has_default;
};

struct Operator {
  c10::OperatorHandle handle;
  std::string name;
  std::vector<Argument> arguments;
  // Only tensors and lists of them are told apart from the rest.
  std::vector<ArgKind> returns;
  bool only_tensor_returns;
  // Several of its results are arguments. libtorch's boxed calls then give up the arguments before they
  // take the results from them: somebody else has to hold them.
  bool returns_references = false;
  Work work;
  std::shared_ptr<const Checks> checks;
};

Operator resolve(c10::OperatorHandle handle);

// Reads bytes and numbers with bounds.
class Streams {
 public:
  explicit Streams(const GenieCall& call)
      : at_(call.skeleton),
        end_(call.skeleton + call.skeleton_len),
        call_(call) {}

  bool empty() const {
    return at_ == end_;
  }
  uint8_t peek() const {
    return *at_;
  }
  // The next item with its numbers. A tensor's storage is taken apart, by storage().
  Item next() {
    Item item;
    if (!next_item(*this, ARGUMENTS, item)) {
      throw ProtocolError("an unknown argument tag");
    }
    return item;
  }
  const uint8_t* bytes(size_t n) {
    need(n <= static_cast<size_t>(end_ - at_));
    const uint8_t* from = at_;
    at_ += n;
    return from;
  }
  const int64_t* params(size_t n) {
    need(n <= call_.params_len - params_);
    params_ += n;
    return call_.params + (params_ - n);
  }
  const int64_t* data(size_t n) {
    need(n <= call_.data_len - data_);
    data_ += n;
    return call_.data + (data_ - n);
  }
  GenieStorage* storage() {
    need(storages_ < call_.storages_len);
    return call_.storages[storages_++];
  }

 private:
  static void need(bool enough) {
    if (!enough) {
      throw ProtocolError("a call needs more numbers than it carries");
    }
  }

  const uint8_t* at_;
  const uint8_t* end_;
  const GenieCall& call_;
  size_t params_ = 0;
  size_t data_ = 0;
  size_t storages_ = 0;
};

// Appends the arguments of one call. `tensors`, if not null, gets each tensor argument that has
// a storage, in order. Seeds the default generator where the skeleton says so.
void build(
    const Operator& op,
    const GenieCall& call,
    torch::jit::Stack& stack,
    std::vector<c10::TensorImpl*>* tensors);

} // namespace genie
