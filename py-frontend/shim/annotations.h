// What a program says of the tensors that it makes (genie/_annotate.py): a number beside each tensor
// that is made in a block, and nothing where no block is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <atomic>
#include <cstdint>

namespace genie {

// How many annotations of a program live.
inline std::atomic<int64_t> annotations{0};

// Notes what the running task says. Takes the GIL.
void annotate(c10::TensorImpl& made);

// The same, where anybody says anything.
inline void note_annotation(const at::Tensor& made) {
  if (C10_UNLIKELY(annotations.load(std::memory_order_relaxed) != 0)) {
    annotate(*made.unsafeGetTensorImpl());
  }
}

// The number of what was said of a tensor, or of what holds its elements; 0 is nothing.
int64_t annotation_of(const at::Tensor& tensor);

}  // namespace genie
