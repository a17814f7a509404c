//! The operators that a client may name. The list is explicit: what is not on it does not run,
//! whatever libtorch has. What the libraries define that the node's operator named is on it, too.

use std::collections::HashSet;
use std::sync::{LazyLock, OnceLock};

use genie_session::fault::Code;
use genie_session::machine::Failure;

static ALLOWED: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../operators.txt").lines().collect());

/// Those of operator libraries.
static LIBRARIES: OnceLock<HashSet<String>> = OnceLock::new();

/// From now on clients may name these, too. Called once, before any executor is forked.
pub fn allow(names: HashSet<String>) {
    let _ = LIBRARIES.set(names);
}

/// Checks that `name` (`aten::add.Tensor`) is on the list.
///
/// # Errors
/// [`Code::NotAllowed`].
pub fn check(name: &str) -> Result<(), Failure> {
    let is_a_librarys = || LIBRARIES.get().is_some_and(|names| names.contains(name));
    if ALLOWED.contains(name) || is_a_librarys() {
        return Ok(());
    }
    let shown: String = name.chars().take(200).collect();
    Err(Failure::new(
        Code::NotAllowed,
        format!("{shown} is not on this node's list of allowed operators"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi;

    #[test]
    fn every_operator_is_known_to_libtorch() {
        let names: Vec<&str> = include_str!("../operators.txt").lines().collect();
        assert!(names.len() > 1800);
        assert!(names.is_sorted(), "the list is sorted");
        for name in &names {
            assert!(name.starts_with("aten::"), "{name}");
            assert!(ffi::operator_exists(name), "{name}");
        }
        assert!(!ffi::operator_exists("aten::no_such_operator"));
    }

    #[test]
    fn what_a_model_needs_is_allowed() {
        for name in [
            "aten::add.Tensor",
            "aten::mm",
            "aten::addmm",
            "aten::convolution",
            "aten::convolution_backward",
            "aten::native_layer_norm",
            "aten::native_batch_norm",
            "aten::embedding",
            "aten::_scaled_dot_product_fused_attention_overrideable",
            "aten::_foreach_addcdiv_.ScalarList",
            "aten::_fused_adamw_",
            "aten::_to_copy",
            "aten::copy_",
            "aten::index_put_",
            "aten::nonzero",
            "aten::_local_scalar_dense",
            "aten::randn",
            "aten::normal_",
            "aten::_thnn_fused_lstm_cell",
        ] {
            assert!(check(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_dangerous_is_not() {
        for name in [
            "aten::from_file",
            "aten::_print",
            "aten::pin_memory",
            "aten::_pin_memory",
            "aten::record_stream",
            "aten::set_.source_Storage",
            "aten::set_.source_Storage_storage_offset",
            "aten::set_data",
            "aten::quantize_per_tensor",
            "aten::quantized_lstm.input",
            "aten::_cudnn_rnn",
            "aten::_cufft_clear_plan_cache",
            "aten::_test_warn_in_autograd",
            "aten::_reshape_alias",
            "aten::_sobol_engine_scramble_",
            "aten::_sparse_coo_tensor_unsafe",
            "aten::_nested_view_from_buffer",
            "prim::Print",
            "aten::add",
            "add.Tensor",
            "",
        ] {
            assert_eq!(
                check(name).map_err(|failure| failure.code),
                Err(Code::NotAllowed),
                "{name}"
            );
        }
    }
}
