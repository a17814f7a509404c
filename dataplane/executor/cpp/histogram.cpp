#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/histc_native.h>
#include <torch/library.h>

#include "kernels.h"

namespace genie {
namespace {

using at::Scalar;
using at::Tensor;

// Of whole numbers CUDA has it and the CPU does not, and programs ask for it wherever the device is not called
// a CPU (transformers counts the tokens of experts by it). Double holds what such a count needs.

Tensor histogram(const Tensor& self, int64_t bins, const Scalar& min, const Scalar& max) {
  if (!c10::isIntegralType(self.scalar_type(), /*includeBool=*/false)) {
    return at::native::histogram_histc(self, bins, min, max);
  }
  return at::native::histogram_histc(self.to(at::kDouble), bins, min, max).to(self.scalar_type());
}

Tensor& histogram_out(
    const Tensor& self,
    int64_t bins,
    const Scalar& min,
    const Scalar& max,
    Tensor& out) {
  if (!c10::isIntegralType(self.scalar_type(), /*includeBool=*/false)) {
    return at::native::histogram_histc_out(self, bins, min, max, out);
  }
  TORCH_CHECK(
      out.scalar_type() == self.scalar_type(),
      "torch.histc: input and out must be of one type, not ",
      self.scalar_type(),
      " and ",
      out.scalar_type());
  at::native::resize_output(out, {bins});
  return out.copy_(histogram(self, bins, min, max));
}

} // namespace

void register_histogram(torch::Library& aten) {
  aten.impl("histc", TORCH_FN(histogram));
  aten.impl("histc.out", TORCH_FN(histogram_out));
}

} // namespace genie
