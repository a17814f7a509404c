#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/linalg_eig.h>
#include <torch/library.h>

#include "kernels.h"

namespace genie {
namespace {

using at::Tensor;

// Without vectors, MKL writes behind its workspace where a matrix is not finite.

Tensor eigenvalues(const Tensor& self) {
  return std::get<0>(at::linalg_eig(self));
}

Tensor& eigenvalues_out(const Tensor& self, Tensor& out) {
  const Tensor values = eigenvalues(self);
  TORCH_CHECK(
      out.scalar_type() == values.scalar_type(),
      "torch.linalg.eigvals: the result must be ",
      values.scalar_type(),
      ", not ",
      out.scalar_type());
  at::native::resize_output(out, values.sizes());
  return out.copy_(values);
}

} // namespace

void register_eigenvalues(torch::Library& aten) {
  aten.impl("_linalg_eigvals", TORCH_FN(eigenvalues));
  aten.impl("linalg_eigvals.out", TORCH_FN(eigenvalues_out));
}

} // namespace genie
