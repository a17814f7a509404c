// Between rows of different lengths behind each other and rows that are filled up, of operators that every node
// has: the kernels that PyTorch has for it trust their offsets.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/where.h>

#include <optional>
#include <tuple>
#include <vector>

#include "backend.h"
#include "layouts.h"

namespace genie {
namespace {

using at::Tensor;

const Tensor& only(at::TensorList offsets) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      offsets.size() == 1 && offsets[0].dim() == 1,
      kDeviceName,
      ": tensors that are jagged in one dimension only are supported");
  return offsets[0];
}

// The row and the place in it of each of `count` elements that lie behind each other. What is behind the last
// row is in one of its own.
std::tuple<Tensor, Tensor> places(const Tensor& offsets, int64_t count) {
  const Tensor each = at::arange(count, offsets.options());
  const Tensor row = at::searchsorted(
      offsets.slice(0, 1).contiguous(), each, /*out_int32=*/false, /*right=*/true);
  return {row, (each - offsets.index_select(0, row)).to(c10::kLong)};
}

std::vector<int64_t> shape(int64_t rows, int64_t length, c10::IntArrayRef rest) {
  std::vector<int64_t> sizes = {rows, length};
  sizes.insert(sizes.end(), rest.begin(), rest.end());
  return sizes;
}

Tensor to_padded(
    const Tensor& values,
    at::TensorList all_offsets,
    c10::IntArrayRef max_lengths,
    double padding) {
  const Tensor& offsets = only(all_offsets);
  TORCH_CHECK(max_lengths.size() == 1 && max_lengths[0] >= 0, "one length for one dimension");
  const int64_t length = max_lengths[0];
  const int64_t rows = offsets.size(0) - 1;
  const auto [row, place] = places(offsets, values.size(0));
  // One place and one row more, for what is beyond.
  const Tensor padded = at::full(
      shape(rows + 1, length + 1, values.sizes().slice(1)), padding, values.options());
  padded.index_put_({row, place.clamp_max(length)}, values);
  return padded.narrow(0, 0, rows).narrow(1, 0, length).contiguous();
}

Tensor from_padded(
    const Tensor& dense,
    at::TensorList all_offsets,
    std::optional<int64_t> total) {
  const Tensor& offsets = only(all_offsets);
  const int64_t count =
      total.has_value() ? *total : offsets.select(0, -1).item().toLong();
  const auto [row, place] = places(offsets, count);
  if (dense.numel() == 0 || count == 0) {
    auto sizes = dense.sizes().slice(2).vec();
    sizes.insert(sizes.begin(), count);
    return at::full(sizes, 0, dense.options());
  }
  const int64_t rows = dense.size(0);
  const int64_t length = dense.size(1);
  const Tensor found =
      dense.index({row.clamp_max(rows - 1), place.clamp_max(length - 1)});
  Tensor is_there = row.lt(rows).logical_and(place.lt(length));
  for (int64_t dim = 1; dim < found.dim(); ++dim) {
    is_there = is_there.unsqueeze(-1);
  }
  return at::where(is_there, found, at::full({}, 0, found.options()));
}

}  // namespace

void register_jagged(torch::Library& dense) {
  dense.impl("_jagged_to_padded_dense_forward", TORCH_FN(to_padded));
  dense.impl("_padded_dense_to_jagged_forward", TORCH_FN(from_padded));
}

}  // namespace genie
