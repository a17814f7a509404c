//! Numbers of operators, the same for all sessions of a process.

use std::collections::HashMap;

use parking_lot::RwLock;

#[derive(Default)]
struct Names {
    by_name: HashMap<&'static str, u32>,
    by_number: Vec<&'static str>,
}

static NAMES: RwLock<Option<Names>> = RwLock::new(None);

/// The number of `name`; the first comes out as 0. Names are kept for good: there are as many as
/// ATen has operators.
pub fn intern(name: &str) -> u32 {
    let mut guard = NAMES.write();
    let names = guard.get_or_insert_with(Names::default);
    if let Some(&number) = names.by_name.get(name) {
        return number;
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let number = names.by_number.len() as u32;
    names.by_name.insert(kept, number);
    names.by_number.push(kept);
    number
}

/// The name of `number`.
#[must_use]
pub fn name(number: u32) -> &'static str {
    let guard = NAMES.read();
    let known = guard
        .as_ref()
        .and_then(|names| names.by_number.get(number as usize));
    known.copied().unwrap_or("an unknown operator")
}
