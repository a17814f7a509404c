//! Compiles the C++ backend against the PyTorch of the checkout's virtual environment.

use std::error::Error;
use std::path::PathBuf;

fn torch_dir() -> Result<PathBuf, Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=GENIE_TORCH");
    if let Some(dir) = std::env::var_os("GENIE_TORCH") {
        return Ok(PathBuf::from(dir));
    }
    Ok(PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../.venv/torch"))
}

fn sources(folders: &[&str]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cpp"));
    files.sort();
    Ok(files)
}

/// The bounds of one record, for C++.
fn limits() -> String {
    use genie_session::record::{NUMBERS_MAX, STRUCTURE_MAX};
    use genie_session::skeleton::{DIMS_MAX, ITEMS_MAX};
    let mut text = String::from("#pragma once\n#include <cstddef>\nnamespace genie::limits {\n");
    for (name, value) in [
        ("ITEMS_MAX", ITEMS_MAX),
        ("DIMS_MAX", usize::from(DIMS_MAX)),
        ("NUMBERS_MAX", NUMBERS_MAX),
        ("STRUCTURE_MAX", STRUCTURE_MAX),
    ] {
        text += &format!("inline constexpr size_t {name} = {value};\n");
    }
    text + "}\n"
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=shim");
    for shared in ["schema_hash", "schema_kind"] {
        println!("cargo:rerun-if-changed=../dataplane/executor/cpp/{shared}.h");
    }
    let torch = torch_dir()?;
    assert!(
        torch.join("include/torch/library.h").exists(),
        "PyTorch's headers are not at {}: run ./scripts/setup, or set GENIE_TORCH to the folder \
         of an installed torch 2.11.0",
        torch.display()
    );
    let generated = PathBuf::from(std::env::var("OUT_DIR")?);
    let skeleton = genie_session::skeleton::cpp::header();
    std::fs::write(generated.join("skeleton.h"), skeleton)?;
    std::fs::write(generated.join("log_limits.h"), limits())?;
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .flag_if_supported("-fvisibility=hidden")
        .flag_if_supported("-Wno-unused-parameter")
        .flag_if_supported("-Wno-deprecated-declarations")
        .flag_if_supported("-Wno-missing-field-initializers")
        // As PyTorch itself is built: some of its classes have members more without it.
        .define("NDEBUG", None)
        .opt_level(2)
        .debug(false)
        .include(&generated)
        .include("shim")
        .include(torch.join("include"))
        .include(torch.join("include/torch/csrc/api/include"))
        .link_lib_modifier("+whole-archive")
        .files(sources(&["shim", "shim/replay", "shim/rules"])?)
        .compile("genie_shim");
    println!(
        "cargo:rustc-link-search=native={}",
        torch.join("lib").display()
    );
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    Ok(())
}
