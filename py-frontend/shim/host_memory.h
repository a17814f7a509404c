// CPU tensors that large results arrive in.
#pragma once

#include <ATen/core/Tensor.h>

namespace genie {

// A contiguous, uninitialised CPU tensor. A large one takes memory that an earlier result gave
// back, if there is some: its pages exist already.
at::Tensor empty_result(at::IntArrayRef sizes, c10::ScalarType dtype);

}  // namespace genie
