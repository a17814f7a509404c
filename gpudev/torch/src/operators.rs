//! The operators that a client may name. The list is explicit: what is not on it does not run,
//! whatever libtorch has.

use std::collections::HashSet;
use std::sync::LazyLock;

use genie_session::fault::Code;
use genie_session::machine::Failure;

static ALLOWED: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../operators.txt").lines().collect());

/// Checks that `name` (`aten::add.Tensor`) is on the list.
///
/// # Errors
/// [`Code::NotAllowed`].
pub fn check(name: &str) -> Result<(), Failure> {
    if ALLOWED.contains(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(200).collect();
    Err(Failure::new(
        Code::NotAllowed,
        format!("{shown} is not on this node's list of allowed operators"),
    ))
}
