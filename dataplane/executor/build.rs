//! Compiles the C++ side against libtorch, with the grammar of skeletons as `genie-session` defines it.

use std::error::Error;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 15] = [
    "arguments",
    "attention",
    "checks",
    "dispatch",
    "eigenvalues",
    "histogram",
    "hostile",
    "invoke",
    "library",
    "machine",
    "recurrent",
    "results",
    "storage",
    "threads",
    "work",
];
const HEADERS: [&str; 15] = [
    "arguments",
    "checks",
    "dispatch",
    "error",
    "hostile",
    "invoke",
    "kernels",
    "operator_name",
    "predicted",
    "results",
    "schema_hash",
    "schema_kind",
    "threads",
    "view",
    "work",
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let generated = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = std::env::var("LIBTORCH")
        .map_or_else(|_| manifest.join("../../.venv/torch"), PathBuf::from);
    let include = libtorch.join("include");
    assert!(
        include.join("ATen/ATen.h").exists(),
        "no libtorch in {}: run scripts/setup, or set LIBTORCH",
        libtorch.display()
    );
    let skeleton = genie_session::skeleton::cpp::header();
    std::fs::write(generated.join("skeleton.h"), skeleton)?;
    println!("cargo:rerun-if-changed=checks.txt");
    let checks = std::fs::read_to_string(manifest.join("checks.txt"))?;
    let checks = format!("constexpr const char* CHECKS_TABLE = R\"table({checks})table\";\n");
    std::fs::write(generated.join("checks_table.h"), checks)?;
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
    stand_in(&manifest, &generated)?;
    println!(
        "cargo:rustc-link-search=native={}",
        libtorch.join("lib").display()
    );
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    link_in_checkout(&manifest);
    Ok(())
}

/// An empty library that goes by the name of the one of libtorch that is for Python. Whoever builds an
/// operator library by PyTorch's own means links it to that, whether it calls it or not.
fn stand_in(manifest: &Path, generated: &Path) -> Result<(), Box<dyn Error>> {
    const SOURCE: &str = "cpp/stand_in.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    let built = cc::Build::new()
        .get_compiler()
        .to_command()
        .args([
            "-shared",
            "-nostdlib",
            "-Wl,-soname,libtorch_python.so",
            "-o",
        ])
        .arg(generated.join("stand_in.so"))
        .arg(manifest.join(SOURCE))
        .status()?;
    if !built.success() {
        return Err(format!("the compiler can't build {SOURCE}: {built}").into());
    }
    Ok(())
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
