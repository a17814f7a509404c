// What sparse tensors do most, of operators on their indices and values.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/result_type.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/native/Resize.h>

#include <tuple>
#include <vector>

#include "backend.h"
#include "layouts.h"
#include "parts.h"

namespace genie {
namespace {

using at::Tensor;

// One number for each place.
Tensor flattened(const Tensor& indices, c10::IntArrayRef sizes) {
  Tensor keys = indices.select(0, 0);
  for (int64_t dim = 1; dim < indices.size(0); ++dim) {
    keys = keys * sizes[static_cast<size_t>(dim)] + indices.select(0, dim);
  }
  return keys;
}

// The places that the numbers stand for.
Tensor unflattened(Tensor keys, int64_t dims, c10::IntArrayRef sizes) {
  std::vector<Tensor> rows(static_cast<size_t>(dims));
  for (int64_t dim = dims - 1; dim > 0; --dim) {
    const int64_t size = sizes[static_cast<size_t>(dim)];
    rows[static_cast<size_t>(dim)] = at::remainder(keys, size);
    keys = at::floor_divide(keys, size);
  }
  rows[0] = keys;
  return at::stack(rows);
}

Tensor made(const Tensor& indices, const Tensor& values, const Tensor& like, bool coalesced) {
  return at::_sparse_coo_tensor_unsafe(
      indices, values, like.sizes(), like.options().dtype(values.scalar_type()), coalesced);
}

// Adds up the values of each place.
Tensor coalesce(const Tensor& self) {
  if (self.is_coalesced()) {
    return self;
  }
  if (self._nnz() < 2) {
    return made(self._indices().clone(), self._values().clone(), self, true);
  }
  if (self.sparse_dim() == 0) {
    return made(self._indices().narrow(1, 0, 1), self._values().sum(0, true), self, true);
  }
  const Tensor keys = flattened(self._indices(), self.sizes());
  const auto [places, which, counts] =
      at::_unique2(keys, /*sorted=*/true, /*return_inverse=*/true, /*return_counts=*/false);
  Tensor values = self._values();
  const bool is_bool = values.scalar_type() == c10::ScalarType::Bool;
  values = is_bool ? values.to(c10::ScalarType::Byte) : values;
  std::vector<int64_t> sizes = values.sizes().vec();
  sizes[0] = places.size(0);
  Tensor sums = at::zeros(sizes, values.options()).index_add_(0, which, values);
  sums = is_bool ? sums.ne(0) : sums;
  return made(unflattened(places, self.sparse_dim(), self.sizes()), sums, self, true);
}

// Adds the elements of a sparse tensor to those of a dense one.
void add_into(const Tensor& dense, const Tensor& sparse, const at::Scalar& alpha) {
  Tensor values = sparse._values();
  if (sparse._nnz() == 0) {
    return;
  }
  values = (alpha.equal(1) ? values : values * alpha).to(dense.scalar_type());
  if (sparse.sparse_dim() == 0) {
    dense.add_(values.sum(0));
    return;
  }
  c10::List<std::optional<Tensor>> at;
  for (const Tensor& row : sparse._indices().unbind(0)) {
    at.push_back(row);
  }
  dense.index_put_(at, values, /*accumulate=*/true);
}

Tensor& add_out(const Tensor& self, const Tensor& other, const at::Scalar& alpha, Tensor& out) {
  if (!self.is_sparse()) {
    TORCH_CHECK(
        self.sizes().equals(other.sizes()),
        "add: expected 'self' and 'other' to have same size, but self has size ",
        self.sizes(),
        " while other has size ",
        other.sizes(),
        " (FYI: op does not support broadcasting)");
    if (!out.is_same(self)) {
      at::native::resize_output(out, self.sizes());
      out.copy_(self);
    }
    add_into(out, other, alpha);
    return out;
  }
  TORCH_CHECK(
      other.is_sparse(),
      "add: expected 'other' to be a sparse tensor, but got a dense tensor");
  TORCH_CHECK(
      self.sizes().equals(other.sizes()) && self.sparse_dim() == other.sparse_dim(),
      "add: expected 'self' and 'other' to have same sizes and sparse dimensions");
  const auto dtype = at::result_type(self, other);
  const Tensor scaled = alpha.equal(1) ? other._values() : other._values() * alpha;
  const Tensor indices = at::cat({self._indices(), other._indices()}, 1);
  const Tensor values = at::cat({self._values().to(dtype), scaled.to(dtype)}, 0);
  // As PyTorch has it: what was in order stays so where there is nothing to add.
  const bool is_coalesced =
      (self._nnz() == 0 && other.is_coalesced()) || (other._nnz() == 0 && self.is_coalesced());
  set_parts(out, self, indices, values.to(out.scalar_type()), is_coalesced);
  return out;
}

// By a number: each value is. Anything else is done on the CPU.
Tensor& mul_out(const Tensor& self, const Tensor& other, Tensor& out) {
  const bool is_by = self.is_sparse() && other.dim() == 0 && !other.is_sparse();
  const Tensor& sparse = is_by ? self : other;
  const Tensor& number = is_by ? other : self;
  if (sparse.is_sparse() && number.dim() == 0 && !number.is_sparse()) {
    const Tensor values = sparse._values() * number;
    set_parts(
        out, sparse, sparse._indices(), values.to(out.scalar_type()), sparse.is_coalesced());
    return out;
  }
  put_into(out, at::mul(to_device(self, c10::kCPU), to_device(other, c10::kCPU)));
  return out;
}

// A sparse matrix times a dense one, row by row of what is there.
Tensor product(
    const Tensor& self,
    const Tensor& sparse,
    const Tensor& dense,
    const at::Scalar& beta,
    const at::Scalar& alpha) {
  TORCH_CHECK(
      sparse.sparse_dim() == 2 && sparse.dense_dim() == 0 && dense.dim() == 2 &&
          sparse.size(1) == dense.size(0),
      "addmm: expected matrices that fit, got ",
      sparse.sizes(),
      " and ",
      dense.sizes());
  const std::vector<int64_t> sizes = {sparse.size(0), dense.size(1)};
  Tensor result = beta.equal(0) ? at::zeros(sizes, dense.options())
                                : (self.expand(sizes) * beta).contiguous();
  if (sparse._nnz() > 0) {
    const Tensor indices = sparse._indices();
    const Tensor rows = dense.index_select(0, indices.select(0, 1)) * sparse._values().unsqueeze(1);
    result.index_add_(0, indices.select(0, 0), rows, alpha);
  }
  return result;
}

Tensor& addmm_out(
    const Tensor& self,
    const Tensor& sparse,
    const Tensor& dense,
    const at::Scalar& beta,
    const at::Scalar& alpha,
    Tensor& out) {
  const Tensor result = product(self, sparse, dense, beta, alpha);
  at::native::resize_output(out, result.sizes());
  return out.copy_(result);
}

Tensor& addmm_(
    Tensor& self,
    const Tensor& sparse,
    const Tensor& dense,
    const at::Scalar& beta,
    const at::Scalar& alpha) {
  return self.copy_(product(self, sparse, dense, beta, alpha));
}

std::vector<Tensor> to_cpu(at::TensorList tensors) {
  std::vector<Tensor> copies;
  for (const Tensor& tensor : tensors) {
    copies.push_back(tensor.defined() ? to_device(tensor, c10::kCPU) : tensor);
  }
  return copies;
}

}  // namespace

void register_sparse(torch::Library& sparse) {
  sparse.impl("_coalesce", TORCH_FN(coalesce));
  sparse.impl("add.out", TORCH_FN(add_out));
  sparse.impl("mul.out", TORCH_FN(mul_out));
  sparse.impl("addmm", TORCH_FN(product));
  sparse.impl("addmm.out", TORCH_FN(addmm_out));
  sparse.impl("addmm_", TORCH_FN(addmm_));
  sparse.impl("_to_cpu", TORCH_FN(to_cpu));
}

}  // namespace genie
