//! The bindings that are kept for hosts without DPDK are those that bindgen makes of 22.11.
//!
//! After a change of the shims, on a host with 22.11, write them anew:
//! `GENIE_WRITE_BINDINGS=1 cargo test -p genie-dpdk-sys --test bindings`

use std::path::Path;

/// What is generated, and where it is kept.
const KEPT: [(&str, &str); 2] = [
    ("shim.rs", "src/bindings_22_11.rs"),
    ("gpudev.rs", "src/gpudev_22_11.rs"),
];

/// Without what formatting may change.
fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn those_in_the_source_are_those_of_22_11() {
    match genie_dpdk_sys::is_built() {
        Ok(version) if !version.starts_with("22.11") => {
            return eprintln!("skipped: this is DPDK {version}");
        }
        Err(reason) => return eprintln!("skipped: {reason}"),
        Ok(_) => {}
    }
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return eprintln!("skipped: they were made on x86-64");
    }
    for (made, kept) in KEPT {
        let made = Path::new(env!("OUT_DIR")).join(made);
        let made = match std::fs::read_to_string(&made) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("skipped: {}: {error}", made.display());
                continue;
            }
        };
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(kept);
        if std::env::var_os("GENIE_WRITE_BINDINGS").is_some() {
            std::fs::write(&place, &made).unwrap();
        }
        let text = std::fs::read_to_string(&place).unwrap();
        let differs = normal(&text) != normal(&made);
        assert!(!differs, "{kept} is out of date; see the top of this test");
    }
}
