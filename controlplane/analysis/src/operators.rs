//! What an operator's name says of it.

/// What an operator does, as far as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The client looks.
    Look,
    /// Between devices.
    Transfer,
    /// A product of matrices.
    Product,
    /// A convolution.
    Convolution,
    /// Rows of a table.
    Lookup,
    /// Attention in one operator.
    Attention,
    /// A softmax.
    Softmax,
    /// A normalisation.
    Norm,
    /// A recurrent layer or cell in one operator.
    Recurrent,
    /// Of neighbouring places the mean or the most.
    Pool,
    /// To more places.
    Resample,
    /// Another arrangement or dtype of what it takes.
    Movement,
    /// Makes or fills values from none.
    Filling,
    /// Draws or picks.
    Sampling,
    /// Of many elements one.
    Reduction,
    /// Measures how far results are off.
    Loss,
    /// A gradient's.
    Backward,
    /// Changes weights by gradients.
    Optimizer,
    /// Each element from the same element.
    Pointwise,
    /// What is in no list.
    Other,
}

/// In-place operators that only optimisers use on a model's own weights.
const OPTIMIZER: [&str; 4] = ["addcdiv_", "addcmul_", "lerp_", "_fused_adamw_"];

/// What an operator does.
#[must_use]
pub fn class_of(name: &str) -> Class {
    if is_backward(name) {
        return Class::Backward;
    }
    if is_optimizer(name) {
        return Class::Optimizer;
    }
    if is_attention(name) {
        return Class::Attention;
    }
    match name {
        "fetch" | "_local_scalar_dense" => Class::Look,
        "send" | "recv" => Class::Transfer,
        "mm" | "addmm" | "bmm" | "baddbmm" | "linear" | "matmul" | "mv" | "addmv" | "addbmm"
        | "dot" | "_grouped_mm" | "_scaled_mm" | "einsum" | "bilinear" | "_addmm_activation" => {
            Class::Product
        }
        _ if is_convolution(name) => Class::Convolution,
        _ if is_lookup(name) => Class::Lookup,
        "_softmax" | "softmax" | "_safe_softmax" => Class::Softmax,
        _ if name.contains("_norm") && !name.starts_with("linalg") => Class::Norm,
        "lstm"
        | "gru"
        | "rnn_tanh"
        | "rnn_relu"
        | "lstm_cell"
        | "gru_cell"
        | "_thnn_fused_lstm_cell"
        | "_thnn_fused_gru_cell"
        | "mkldnn_rnn_layer"
        | "_lstm_mps" => Class::Recurrent,
        _ if name.contains("_pool") => Class::Pool,
        _ if name.starts_with("upsample") || name.starts_with("_upsample") => Class::Resample,
        "pixel_shuffle" | "grid_sampler_2d" | "grid_sampler_3d" | "col2im" => Class::Resample,
        "clone" | "_to_copy" | "copy_" | "contiguous" | "cat" | "stack" | "constant_pad_nd"
        | "repeat" | "roll" | "flip" | "index_select" | "index" | "gather" | "slice_scatter"
        | "select_scatter" | "index_put" | "index_put_" | "_index_put_impl_" | "index_copy"
        | "index_copy_" | "scatter" | "scatter_" | "repeat_interleave" | "im2col" | "unfold"
        | "reflection_pad1d" | "reflection_pad2d" | "replication_pad1d" | "replication_pad2d"
        | "_reshape_alias" | "_reshape_copy" | "view_copy" | "expand_copy" | "_unsafe_view"
        | "pixel_unshuffle" | "native_dropout" | "masked_scatter" | "masked_select"
        | "take_along_dim" => Class::Movement,
        "alloc" | "empty" | "zeros" | "ones" | "full" | "fill_" | "zero_" | "normal_"
        | "uniform_" | "arange" | "bernoulli_" | "randn" | "rand" | "zeros_like" | "ones_like"
        | "full_like" | "empty_like" | "new_zeros" | "new_ones" | "new_full" | "new_empty"
        | "scalar_tensor" | "linspace" | "eye" | "trunc_normal_" | "randint" | "rand_like"
        | "randn_like" | "exponential_" | "randperm" | "empty_strided" | "tril_indices" => {
            Class::Filling
        }
        "argmax" | "multinomial" | "topk" | "sort" => Class::Sampling,
        "sum" | "mean" | "amax" | "amin" | "max" | "min" | "var" | "std" | "var_mean" | "any"
        | "all" | "prod" | "norm" | "linalg_vector_norm" | "logsumexp" | "cumsum" | "argmin"
        | "count_nonzero" | "nonzero" | "std_mean" | "aminmax" => Class::Reduction,
        "nll_loss_forward"
        | "nll_loss2d_forward"
        | "mse_loss"
        | "l1_loss"
        | "smooth_l1_loss"
        | "huber_loss"
        | "binary_cross_entropy"
        | "binary_cross_entropy_with_logits"
        | "_log_softmax"
        | "_ctc_loss"
        | "kl_div"
        | "cross_entropy_loss"
        | "soft_margin_loss"
        | "multi_margin_loss" => Class::Loss,
        _ if is_pointwise(name) => Class::Pointwise,
        _ => Class::Other,
    }
}

/// Whether it is attention in one operator.
#[must_use]
pub fn is_attention(name: &str) -> bool {
    name.contains("scaled_dot_product") && name.contains("attention")
        || name == "_native_multi_head_attention"
}

/// Whether an operator computes gradients.
#[must_use]
pub fn is_backward(name: &str) -> bool {
    name.contains("_backward")
}

/// Whether an operator changes a model's weights by their gradients.
#[must_use]
pub fn is_optimizer(name: &str) -> bool {
    name.starts_with("_foreach_") || name.starts_with("_fused_") || OPTIMIZER.contains(&name)
}

/// Whether it is a convolution.
#[must_use]
pub fn is_convolution(name: &str) -> bool {
    matches!(
        name,
        "convolution"
            | "conv1d"
            | "conv2d"
            | "conv3d"
            | "_convolution"
            | "mkldnn_convolution"
            | "conv_transpose1d"
            | "conv_transpose2d"
            | "conv_transpose3d"
            | "convolution_overrideable"
    )
}

/// Whether rows of a table are looked up.
#[must_use]
pub fn is_lookup(name: &str) -> bool {
    name == "embedding" || is_bag(name)
}

/// Whether looked up rows are pooled at once.
#[must_use]
pub fn is_bag(name: &str) -> bool {
    matches!(
        name,
        "embedding_bag" | "_embedding_bag" | "_embedding_bag_forward_only"
    )
}

/// Which inputs of a product are its factors, the one that carries data first.
#[must_use]
pub fn factors(name: &str) -> (usize, usize) {
    match name {
        "addmm" | "baddbmm" | "addmv" | "addbmm" | "_addmm_activation" => (1, 2),
        _ => (0, 1),
    }
}

/// Operators that compute each element from the same element of their inputs.
const POINTWISE: [&str; 67] = [
    "abs",
    "acos",
    "add",
    "addcdiv",
    "addcmul",
    "asin",
    "atan",
    "atan2",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "div",
    "elu",
    "eq",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "ge",
    "gelu",
    "gt",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "isfinite",
    "isnan",
    "le",
    "leaky_relu",
    "lerp",
    "log",
    "log1p",
    "log_sigmoid_forward",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "masked_fill",
    "maximum",
    "minimum",
    "mish",
    "mul",
    "ne",
    "neg",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "round",
    "rsqrt",
    "rsub",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "square",
    "sub",
    "tan",
    "tanh",
    "where",
];

/// Whether an operator, in place or not, is pointwise.
#[must_use]
pub fn is_pointwise(name: &str) -> bool {
    let name = name.strip_suffix('_').unwrap_or(name);
    POINTWISE.contains(&name)
}

/// Whether it is what stands between the layers of a feed-forward block.
#[must_use]
pub fn is_activation(name: &str) -> bool {
    matches!(
        name.strip_suffix('_').unwrap_or(name),
        "relu"
            | "gelu"
            | "silu"
            | "sigmoid"
            | "tanh"
            | "elu"
            | "leaky_relu"
            | "mish"
            | "hardswish"
            | "hardsigmoid"
            | "hardtanh"
            | "softplus"
            | "erf"
            | "celu"
            | "selu"
            | "log_sigmoid_forward"
            | "pow"
            | "square"
            | "clamp"
            | "clamp_min"
    )
}
