// Quantised tensors come and go by their numbers.
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>

#include "backend.h"
#include "layouts.h"
#include "parts.h"

namespace genie {
namespace {

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& destination, bool /*non_blocking*/) {
  TORCH_CHECK(
      source.is_quantized() && destination.is_quantized(),
      "a quantised tensor is copied to a quantised one");
  const at::Tensor local = to_device(source, c10::kCPU);
  if (destination.is_cpu()) {
    at::Tensor there = destination;
    return there.copy_(local);
  }
  at::get_qtensorimpl(destination)->set_quantizer_(at::get_qtensorimpl(local)->quantizer());
  put_into(destination, local);
  return destination;
}

}  // namespace

void register_quantised(torch::Library& quantised, torch::Library& quantised_here) {
  quantised.impl("_copy_from", TORCH_FN(copy_from));
  quantised_here.impl("_copy_from", TORCH_FN(copy_from));
}

}  // namespace genie
