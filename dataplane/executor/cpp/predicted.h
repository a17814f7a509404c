// The results of a call as its client predicts them.
#pragma once

#include "dispatch.h"
#include "error.h"
#include "skeleton.h"

namespace genie {

// A result skeleton with its sizes and strides.
class Predicted {
 public:
  explicit Predicted(const GenieCall& call)
      : at_(call.out),
        end_(call.out + call.out_len),
        params_(call.out_params),
        params_end_(call.out_params + call.out_params_len) {}

  bool empty() const {
    return at_ == end_;
  }
  // The next item with its numbers.
  Item next() {
    Item item;
    if (!next_item(*this, RESULTS, item)) {
      throw ProtocolError("an unknown result tag");
    }
    return item;
  }
  const uint8_t* bytes(size_t n) {
    if (n > static_cast<size_t>(end_ - at_)) {
      throw ProtocolError("a result skeleton is truncated");
    }
    at_ += n;
    return at_ - n;
  }
  const int64_t* params(size_t n) {
    if (n > static_cast<size_t>(params_end_ - params_)) {
      throw ProtocolError("a result skeleton needs more numbers than it carries");
    }
    params_ += n;
    return params_ - n;
  }
  // No result has any.
  const int64_t* data(size_t) {
    throw ProtocolError("a result skeleton with data");
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  const int64_t* params_;
  const int64_t* params_end_;
};

} // namespace genie
