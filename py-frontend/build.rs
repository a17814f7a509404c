//! Compiles the C++ backend against the PyTorch of the checkout's virtual environment.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the torch to build against: that of GENIE_TORCH, of the checkout, or of the Python that
/// maturin builds for.
fn torch_dir(manifest: &Path) -> PathBuf {
    println!("cargo:rerun-if-env-changed=GENIE_TORCH");
    if let Some(dir) = std::env::var_os("GENIE_TORCH") {
        return PathBuf::from(dir);
    }
    let checkouts = manifest.join("../.venv/torch");
    if checkouts.exists() {
        return checkouts;
    }
    for name in ["PYO3_PYTHON", "VIRTUAL_ENV"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let activated =
        std::env::var_os("VIRTUAL_ENV").map(|dir| PathBuf::from(dir).join("bin/python"));
    let built_for = std::env::var_os("PYO3_PYTHON").map(PathBuf::from);
    let pythons = [activated, built_for, Some("python3".into())];
    let found = pythons
        .into_iter()
        .flatten()
        .find_map(|python| installed_for(&python, manifest));
    found.unwrap_or(checkouts)
}

/// What the package's build finds when it is asked by this Python.
fn installed_for(python: &Path, manifest: &Path) -> Option<PathBuf> {
    let script = manifest.join("packaging/genie_build.py");
    let asked = Command::new(python).arg(script).output().ok()?;
    let found = String::from_utf8(asked.stdout).ok()?;
    let found = found.trim();
    (asked.status.success() && !found.is_empty()).then(|| PathBuf::from(found))
}

/// The releases that this source can be built for, such as `2.11.0`: the package says which.
fn releases(manifest: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let project = manifest.join("pyproject.toml");
    println!("cargo:rerun-if-changed={}", project.display());
    let text = std::fs::read_to_string(project)?;
    let (_, after) = text
        .split_once("torch-releases = [")
        .ok_or("pyproject.toml names no releases of torch")?;
    let end = after.find(']').ok_or("pyproject.toml is not whole")?;
    let quoted = after[..end].split('"').skip(1).step_by(2);
    Ok(quoted.map(str::to_owned).collect())
}

/// Its release, `2.11.0`, as far as its folder tells.
fn release(torch: &Path) -> Option<String> {
    let text = std::fs::read_to_string(torch.join("version.py")).ok()?;
    let (_, after) = text.split_once("__version__ = '")?;
    let end = after.find(['+', '\''])?;
    Some(after[..end].to_owned())
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

/// Parses PyTorch's headers once, and not once a file: half of the time.
fn precompile(build: &mut cc::Build, generated: &Path) -> Result<(), Box<dyn Error>> {
    let header = generated.join("precompiled.h");
    std::fs::copy("shim/precompiled.h", &header)?;
    let mut compiler = build.get_compiler().to_command();
    compiler.args(["-x", "c++-header"]).arg(&header).arg("-o");
    // Where it fails the compiler reads the header itself.
    let precompiled = compiler.arg(generated.join("precompiled.h.gch")).status()?;
    if precompiled.success() {
        build.flag("-include").flag(&header);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=shim");
    for shared in ["operator_name", "schema_hash", "schema_kind"] {
        println!("cargo:rerun-if-changed=../dataplane/executor/cpp/{shared}.h");
    }
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let (torch, fitting) = (torch_dir(&manifest), releases(&manifest)?);
    let found = release(&torch);
    if let Some(other) = found.as_ref().filter(|found| !fitting.contains(found)) {
        return Err(format!(
            "this source fits torch {}, and the torch in {} is {other}: install one of these, or \
             name another by GENIE_TORCH",
            fitting.join(" and "),
            torch.display()
        )
        .into());
    }
    assert!(
        torch.join("include/torch/library.h").exists(),
        "PyTorch's headers are not at {}: run ./scripts/setup, or set GENIE_TORCH to the folder \
         of an installed torch ({})",
        torch.display(),
        fitting.join(" or ")
    );
    let built_for = found.as_ref().or(fitting.first());
    println!(
        "cargo:rustc-env=GENIE_TORCH_RELEASE={}",
        built_for.map_or("", String::as_str)
    );
    let generated = PathBuf::from(std::env::var("OUT_DIR")?);
    let skeleton = genie_session::skeleton::cpp::header();
    std::fs::write(generated.join("skeleton.h"), skeleton)?;
    std::fs::write(generated.join("log_limits.h"), limits())?;
    let mut build = cc::Build::new();
    build
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
        .include("shim");
    for headers in ["include", "include/torch/csrc/api/include"] {
        build.flag("-isystem").flag(torch.join(headers));
    }
    precompile(&mut build, &generated)?;
    build
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
