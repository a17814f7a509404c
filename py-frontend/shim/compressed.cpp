// Indices of compressed tensors: from rows to where each row begins, and back.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_convert_indices_from_csr_to_coo.h>
#include <ATen/ops/_validate_compressed_sparse_indices.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/stack.h>

#include "backend.h"
#include "layouts.h"

namespace genie {
namespace {

using at::Tensor;

// Where the first of each row is among rows in order.
Tensor to_beginnings(const Tensor& rows, int64_t count, bool out_int32) {
  const Tensor all = at::arange(count + 1, rows.options());
  return at::searchsorted(rows.contiguous(), all, out_int32);
}

Tensor to_rows(const Tensor& beginnings, const Tensor& columns, bool out_int32, bool transpose) {
  if (beginnings.dim() != 1) {
    const Tensor found =
        at::_convert_indices_from_csr_to_coo(beginnings.cpu(), columns.cpu(), out_int32, transpose);
    return found.to(beginnings.device());
  }
  const Tensor ends = beginnings.slice(0, 1).contiguous();
  const Tensor places = at::arange(columns.numel(), ends.options());
  const Tensor rows = at::searchsorted(ends, places, out_int32, /*right=*/true);
  const Tensor others = columns.to(rows.scalar_type());
  return transpose ? at::stack({others, rows}) : at::stack({rows, others});
}

// Before a program's indices are believed, they are looked at here.
void validate(
    bool is_crow,
    const Tensor& compressed,
    const Tensor& plain,
    int64_t cdim,
    int64_t dim,
    int64_t nnz) {
  at::_validate_compressed_sparse_indices(is_crow, compressed.cpu(), plain.cpu(), cdim, dim, nnz);
}

}  // namespace

void register_compressed(torch::Library& dense) {
  dense.impl("_convert_indices_from_coo_to_csr", TORCH_FN(to_beginnings));
  dense.impl("_convert_indices_from_csr_to_coo", TORCH_FN(to_rows));
  dense.impl("_validate_compressed_sparse_indices", TORCH_FN(validate));
}

}  // namespace genie
