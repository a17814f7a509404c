// Operators on tensors of other layouts whose kernels are made of other operators: PyTorch registers one function
// for the CPU and for CUDA, so it reads no memory of a device. From native_functions.yaml of torch 2.11;
// tests/test_layouts.py compares.
#pragma once

#include <array>

namespace genie {

constexpr std::array<const char*, 155> kSparseOperators = {
    "_coalesced_", "_dimI", "_dimV", "_indices", "_nnz", "_sparse_broadcast_to",
    "_sparse_coo_tensor_with_dims", "_sparse_coo_tensor_with_dims_and_tensors",
    "_sparse_mask_projection", "_to_dense", "_to_sparse", "_to_sparse.sparse_dim",
    "_to_sparse_bsc", "_to_sparse_bsr", "_to_sparse_csc", "_to_sparse_csr", "_values", "abs",
    "abs.out", "abs_", "add.Tensor", "add_.Tensor", "any", "asin", "asin.out", "asin_", "asinh",
    "asinh.out", "asinh_", "atan", "atan.out", "atan_", "atanh", "atanh.out", "atanh_", "cat",
    "ceil", "ceil.out", "ceil_", "clone", "conj_physical.out", "copy_", "copy_sparse_to_sparse_",
    "deg2rad", "deg2rad.out", "deg2rad_", "dense_dim", "div.Tensor", "div.Tensor_mode", "div.out",
    "div.out_mode", "div_.Tensor", "div_.Tensor_mode", "empty.memory_format", "empty_like", "erf",
    "erf.out", "erf_", "erfinv", "erfinv.out", "erfinv_", "expm1", "expm1.out", "expm1_", "floor",
    "floor.out", "floor_", "floor_divide", "floor_divide.out", "floor_divide_.Tensor", "frac",
    "frac.out", "frac_", "indices", "is_coalesced", "isinf", "isnan", "isneginf", "isneginf.out",
    "isposinf", "isposinf.out", "log1p", "log1p.out", "log1p_", "mm", "mm.out", "mul.Tensor",
    "mul_.Tensor", "mv", "nan_to_num", "nan_to_num.out", "nan_to_num_", "narrow_copy",
    "native_norm", "native_norm.ScalarOpt_dim_dtype", "neg", "neg.out", "neg_",
    "norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype", "permute", "pow.Tensor_Scalar",
    "pow.Tensor_Scalar_out", "rad2deg", "rad2deg.out", "rad2deg_", "relu", "relu_",
    "resize_as_sparse_", "round", "round.out", "round_", "sgn", "sgn.out", "sgn_", "sign",
    "sign.out", "sign_", "signbit", "signbit.out", "sin", "sin.out", "sin_", "sinh", "sinh.out",
    "sinh_", "sparse_dim", "sparse_mask", "sparse_resize_", "sparse_resize_and_clear_", "sqrt",
    "sqrt.out", "sqrt_", "sub.Tensor", "sub.out", "sub_.Tensor", "sum", "sum.dim_IntList", "tan",
    "tan.out", "tan_", "tanh", "tanh.out", "tanh_", "threshold_backward",
    "threshold_backward.grad_input", "trunc", "trunc.out", "trunc_", "unsqueeze", "values",
    "view_as_complex", "view_as_real", "zero_", "zeros.out",
};

constexpr std::array<const char*, 128> kCompressedOperators = {
    "_conj_physical", "_nnz", "_to_dense", "_to_sparse", "_to_sparse.sparse_dim",
    "_to_sparse_bsc", "_to_sparse_bsr", "_to_sparse_csc", "_to_sparse_csr", "abs", "abs.out",
    "abs_", "add.Tensor", "add_.Tensor", "addmm", "angle", "angle.out", "asin", "asin.out",
    "asin_", "asinh", "asinh.out", "asinh_", "atan", "atan.out", "atan_", "atanh", "atanh.out",
    "atanh_", "ccol_indices", "ceil", "ceil.out", "ceil_", "clone", "col_indices",
    "conj_physical.out", "conj_physical_", "copy_", "crow_indices", "deg2rad", "deg2rad.out",
    "deg2rad_", "dense_dim", "empty.memory_format", "empty_like", "erf", "erf.out", "erf_",
    "erfinv", "erfinv.out", "erfinv_", "expm1", "expm1.out", "expm1_", "fill_.Scalar", "floor",
    "floor.out", "floor_", "frac", "frac.out", "frac_", "isinf", "isnan", "isneginf",
    "isneginf.out", "isposinf", "isposinf.out", "log1p", "log1p.out", "log1p_", "mm", "mm.out",
    "mul.Scalar", "mul.Tensor", "mul.out", "mul_.Scalar", "mul_.Tensor", "neg", "neg.out", "neg_",
    "normal_", "rad2deg", "rad2deg.out", "rad2deg_", "relu", "relu_", "resize_",
    "resize_as_sparse_", "round", "round.out", "round_", "row_indices", "select.int",
    "select_copy.int", "sgn", "sgn.out", "sgn_", "sign", "sign.out", "sign_", "signbit",
    "signbit.out", "sin", "sin.out", "sin_", "sinh", "sinh.out", "sinh_", "sparse_dim",
    "sparse_mask", "sqrt", "sqrt.out", "sqrt_", "sum", "sum.dim_IntList", "tan", "tan.out",
    "tan_", "tanh", "tanh.out", "tanh_", "threshold_backward", "threshold_backward.grad_input",
    "trunc", "trunc.out", "trunc_", "values", "zero_",
};

constexpr std::array<const char*, 90> kNestedOperators = {
    "_nested_from_padded_and_nested_example", "_nested_select_backward", "_nested_tensor_size",
    "_nested_tensor_storage_offsets", "_nested_tensor_strides", "_safe_softmax", "_softmax",
    "_softmax_backward_data", "_test_autograd_multiple_dispatch.fullcoverage",
    "_test_autograd_multiple_dispatch.ntonly", "_to_copy", "_transformer_encoder_layer_fwd",
    "abs", "abs_", "add.Tensor", "add_.Tensor", "alias", "all.dim", "cat", "chunk", "clone",
    "copy_", "cos", "detach", "div.Scalar", "div.Tensor", "embedding", "empty_like", "eq.Scalar",
    "eq.Tensor", "fill_.Scalar", "fill_.Tensor", "ge.Scalar", "gelu", "gelu_", "gelu_backward",
    "gt.Scalar", "is_same_size", "isinf", "isnan", "isneginf", "isposinf", "linear",
    "linear_backward", "logical_not", "logical_not_", "masked_fill.Scalar", "matmul",
    "matmul.out", "matmul_backward", "mul.Scalar", "mul.Tensor", "mul_.Scalar", "mul_.Tensor",
    "narrow", "native_dropout", "native_dropout_backward", "native_layer_norm",
    "native_layer_norm_backward", "neg", "neg_", "normal_", "ones_like", "relu", "relu_",
    "select.int", "sgn", "sgn_", "silu", "silu_", "silu_backward", "sin", "split_with_sizes",
    "sqrt", "squeeze", "squeeze.dim", "squeeze.dims", "sub.Tensor", "tanh", "tanh_",
    "threshold_backward", "transpose.int", "unbind.int", "unsqueeze",
    "value_selecting_reduction_backward", "values", "view", "where.self", "where.self_out",
    "zero_",
};

}  // namespace genie
