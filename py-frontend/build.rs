//! Compiles the C++ backend against the PyTorch of the checkout's virtual environment.

use std::path::{Path, PathBuf};

fn torch_dir() -> PathBuf {
    println!("cargo:rerun-if-env-changed=GENIE_TORCH");
    if let Some(dir) = std::env::var_os("GENIE_TORCH") {
        return PathBuf::from(dir);
    }
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    root.join("../.venv/torch")
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the shim is beside this script")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .collect();
    files.sort();
    files
}

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=../gpudev/torch/cpp/schema_hash.h");
    let torch = torch_dir();
    assert!(
        torch.join("include/torch/library.h").exists(),
        "PyTorch's headers are not at {}: run ./scripts/setup, or set GENIE_TORCH to the folder \
         of an installed torch 2.11.0",
        torch.display()
    );
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .flag_if_supported("-fvisibility=hidden")
        .flag_if_supported("-Wno-unused-parameter")
        .flag_if_supported("-Wno-deprecated-declarations")
        .flag_if_supported("-Wno-missing-field-initializers")
        .opt_level(2)
        .debug(false)
        .include(torch.join("include"))
        .include(torch.join("include/torch/csrc/api/include"))
        .link_lib_modifier("+whole-archive")
        .files(sources(Path::new("shim")))
        .compile("genie_shim");
    println!(
        "cargo:rustc-link-search=native={}",
        torch.join("lib").display()
    );
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
}
