// `tensor_split` by a tensor: where it splits decides shapes, so it is fetched.
#include <ATen/ops/tensor_split_native.h>
#include <torch/library.h>

#include "backend.h"

namespace genie {
namespace {

std::vector<at::Tensor> tensor_split(const at::Tensor& self, const at::Tensor& at, int64_t dim) {
  return at::native::tensor_split(self, is_remote(at) ? at.cpu() : at, dim);
}

}  // namespace

void register_split() {
  // A composition of views: below and above autograd it is the same.
  constexpr const char* name = "tensor_split.tensor_indices_or_sections";
  static torch::Library above(
      torch::Library::IMPL, "aten", c10::DispatchKey::AutogradPrivateUse1, __FILE__, __LINE__);
  above.impl(name, TORCH_FN(tensor_split));
  static torch::Library below(
      torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  below.impl(name, TORCH_FN(tensor_split));
}

}  // namespace genie
