//! What an operator's name says of it.

/// In-place operators that only optimisers use on a model's own weights.
const OPTIMIZER: [&str; 4] = ["addcdiv_", "addcmul_", "lerp_", "_fused_adamw_"];

/// Whether it is attention in one operator.
#[must_use]
pub fn is_attention(name: &str) -> bool {
    name.contains("scaled_dot_product") && name.contains("attention")
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
    matches!(name, "convolution" | "conv1d" | "conv2d" | "conv3d")
}

/// Whether rows of a table are looked up.
#[must_use]
pub fn is_lookup(name: &str) -> bool {
    matches!(name, "embedding" | "_embedding_bag" | "embedding_bag")
}

/// Whether it is a product of matrices.
#[must_use]
pub fn is_product(name: &str) -> bool {
    matches!(
        name,
        "mm" | "addmm" | "bmm" | "baddbmm" | "linear" | "matmul"
    )
}
