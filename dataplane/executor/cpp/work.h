// How long an operator would take one thread, roughly: enough to tell what is worth several.
#pragma once

#include <ATen/core/stack.h>

#include <string_view>

#include "dispatch.h"

namespace genie {

// What an operator's time grows with.
struct Work {
  enum class Kind : uint8_t {
    Elements, // of all its tensors
    Product, // of two matrices, the first at `first`
    Convolution, // the weight after the tensor at `first`
    Attention, // query and key at `first`
    Cubic, // of matrices, in their last dimension
  };
  Kind kind = Kind::Elements;
  uint8_t first = 0;
  // For an element, or for a multiplication and addition.
  float ns = 0.4F;
};

// By its name, without `aten::` and the overload.
Work work_of(std::string_view name);

// Nanoseconds on one thread.
double estimate(const Work& work, const torch::jit::Stack& arguments, const GenieCall& call);

} // namespace genie
