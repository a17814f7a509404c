//! Compiles the C++ side against libtorch, with the wire's tags as `genie-session` defines them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use genie_session::fault::Code;
use genie_session::skeleton::{element_bytes, flag, out, tag};

const SOURCES: [&str; 6] = [
    "arguments",
    "attention",
    "dispatch",
    "recurrent",
    "results",
    "storage",
];
const HEADERS: [&str; 8] = [
    "arguments",
    "dispatch",
    "error",
    "kernels",
    "results",
    "schema_hash",
    "schema_kind",
    "view",
];

fn main() {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let generated = PathBuf::from(std::env::var("OUT_DIR").unwrap());
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = std::env::var("LIBTORCH")
        .map_or_else(|_| manifest.join("../../.venv/torch"), PathBuf::from);
    let include = libtorch.join("include");
    assert!(
        include.join("ATen/ATen.h").exists(),
        "no libtorch in {}: run scripts/setup, or set LIBTORCH",
        libtorch.display()
    );
    std::fs::write(generated.join("tags.h"), tags()).unwrap();
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .include("cpp")
        .include(&generated)
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        .flag("-Wall")
        .flag_if_supported("-Wno-psabi");
    for name in SOURCES {
        build.file(format!("cpp/{name}.cpp"));
        println!("cargo:rerun-if-changed=cpp/{name}.cpp");
    }
    for name in HEADERS {
        println!("cargo:rerun-if-changed=cpp/{name}.h");
    }
    build.compile("genie_torch");
    println!(
        "cargo:rustc-link-search=native={}",
        libtorch.join("lib").display()
    );
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    link_in_checkout(&manifest);
}

/// In a checkout, tests and the bare program find libtorch without LD_LIBRARY_PATH.
fn link_in_checkout(manifest: &Path) {
    if manifest.join("../../.venv/torch").exists() {
        for up in ["../..", "../../.."] {
            println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/{up}/.venv/torch/lib");
        }
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
    }
}

fn tags() -> String {
    macro_rules! constants {
        ($text:ident, $module:ident: $($name:ident)+) => {
            writeln!($text, "namespace {} {{", stringify!($module)).unwrap();
            $(writeln!($text, "constexpr uint8_t {} = {};", stringify!($name), $module::$name)
                .unwrap();)+
            writeln!($text, "}}").unwrap();
        };
    }
    let mut text = String::from("#pragma once\n#include <cstdint>\nnamespace genie {\n");
    constants!(text, tag: NONE TENSOR SCALAR_TENSOR INT ENUM DOUBLE TRUE FALSE SCALAR_INT
        SCALAR_DOUBLE SCALAR_TRUE SCALAR_FALSE SCALAR_COMPLEX STRING INT_LIST DOUBLE_LIST
        BOOL_LIST LIST DEVICE GENERATOR SEED
        DEFAULT_DTYPE);
    constants!(text, flag: WRITE WRAPPED NEGATIVE CONJUGATE);
    constants!(text, out: NONE FRESH ALIAS LIST);
    text.push_str("namespace code {\n");
    for code in [
        Code::Operator,
        Code::OutOfMemory,
        Code::Protocol,
        Code::Index,
        Code::NotImplemented,
        Code::Value,
    ] {
        writeln!(text, "constexpr int {code:?} = {};", code as u8).unwrap();
    }
    let mask = (0..64).filter(|&dtype| element_bytes(dtype).is_some());
    let mask = mask.fold(0_u64, |mask, dtype| mask | (1 << dtype));
    writeln!(
        text,
        "}}\nconstexpr uint64_t DTYPE_MASK = {mask:#x}ULL;\n}}"
    )
    .unwrap();
    text
}
