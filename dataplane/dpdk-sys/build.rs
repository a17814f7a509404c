//! Builds the shim against the DPDK that pkg-config finds and generates the bindings for it.
//! Where something is missing, the crate compiles all the same and knows the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The libraries whose symbols the bindings name. Drivers are plug-ins that EAL finds by itself.
const LIBRARIES: [&str; 5] = [
    "rte_eal",
    "rte_ethdev",
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
];

/// DPDK's own functions that Rust calls by name.
const FUNCTIONS: &str = "genie_dpdk_.*|rte_eal_(init|cleanup)|rte_eal_hotplug_(add|remove)\
    |rte_dev_probe|rte_dev_remove|rte_strerror|rte_version|rte_thread_(un)?register\
    |rte_pktmbuf_pool_create|rte_pktmbuf_free_bulk\
    |rte_mempool_(free|avail_count|in_use_count)\
    |rte_eth_dev_(get_port_by_name|info_get|configure|adjust_nb_rx_tx_desc|start|stop|close\
    |get_mtu|set_mtu|socket_id)|rte_eth_(rx|tx)_queue_setup|rte_eth_macaddr_get\
    |rte_eth_promiscuous_enable|rte_eth_stats_(get|reset)|rte_eth_dev_count_avail";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(dpdk_built)");
    for file in ["shim/shim.h", "shim/shim.c", "src/bindings_22_11.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for variable in [
        "GENIE_DPDK",
        "PKG_CONFIG",
        "PKG_CONFIG_PATH",
        "PKG_CONFIG_LIBDIR",
        "LIBCLANG_PATH",
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    match build() {
        Ok(version) => {
            println!("cargo::rustc-cfg=dpdk_built");
            println!("cargo::rustc-env=GENIE_DPDK_BUILD={version}");
        }
        Err(reason) => {
            let reason = reason.trim().replace('\n', "; ");
            println!("cargo::rustc-env=GENIE_DPDK_BUILD={reason}");
        }
    }
}

/// The version built against, or why there is none.
fn build() -> Result<String, String> {
    if std::env::var("GENIE_DPDK").is_ok_and(|value| value == "off") {
        return Err("GENIE_DPDK=off was set at build time".into());
    }
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return Err("only Linux is supported".into());
    }
    let version = pkg_config(&["--modversion"])?;
    if !supported(&version) {
        return Err(format!("DPDK {version} is too old: 22.11 is the least"));
    }
    let flags: Vec<String> = pkg_config(&["--cflags"])?
        .split_whitespace()
        .chain(["-DALLOW_EXPERIMENTAL_API", "-DALLOW_INTERNAL_API"])
        .map(str::to_owned)
        .collect();
    let out = std::env::var("OUT_DIR").map_err(|error| error.to_string())?;
    let out = PathBuf::from(out);
    compile_shim(&flags, &out.join("libgenie_dpdk_shim.so"))?;
    generate_bindings(&flags, &out.join("bindings.rs"))?;
    Ok(version)
}

fn supported(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(year)), Some(Ok(month))) => (year, month) >= (22, 11),
        _ => false,
    }
}

fn pkg_config(arguments: &[&str]) -> Result<String, String> {
    let program = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(&program)
        .args(arguments)
        .arg("libdpdk")
        .output()
        .map_err(|error| format!("{program} can't be run ({error}): install it"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err("pkg-config does not find libdpdk: install libdpdk-dev".into())
    }
}

fn compile_shim(flags: &[String], library: &Path) -> Result<(), String> {
    let compiler = cc::Build::new()
        .opt_level(3)
        .pic(true)
        .try_get_compiler()
        .map_err(|error| format!("no C compiler: {error}"))?;
    let mut command = compiler.to_command();
    command
        .args([
            "-shared",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
        ])
        .args(flags)
        .arg("shim/shim.c")
        .arg("-o")
        .arg(library)
        .args(pkg_config(&["--libs-only-L"])?.split_whitespace())
        .args(["-Wl,--no-as-needed", "-Wl,-soname,libgenie_dpdk_shim.so"])
        .args(LIBRARIES.map(|name| format!("-l{name}")));
    let output = command
        .output()
        .map_err(|error| format!("the C compiler can't be run: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("the shim does not compile: {message}"))
    }
}

fn generate_bindings(flags: &[String], file: &Path) -> Result<(), String> {
    // bindgen panics where libclang is missing, so it is asked for first.
    clang_sys::load().map_err(|error| format!("no libclang (install libclang-dev): {error}"))?;
    bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(flags)
        .dynamic_library_name("Api")
        .dynamic_link_require_all(true)
        .allowlist_function(FUNCTIONS)
        .allowlist_var("GENIE_.*")
        // Only pointers to these are handed about; unnamed parts of them change between releases.
        .blocklist_type("rte_mbuf.*|rte_mempool.*|rte_device")
        .raw_line("#[repr(C)] pub struct rte_mbuf { _opaque: [u8; 0] }")
        .raw_line("#[repr(C)] pub struct rte_mempool { _opaque: [u8; 0] }")
        .raw_line("#[repr(C)] pub struct rte_device { _opaque: [u8; 0] }")
        .opaque_type("rte_eth_(dcb|vmdq).*")
        .derive_default(true)
        .generate_comments(false)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .rust_target(bindgen::RustTarget::stable(88, 0).map_err(|error| error.to_string())?)
        .formatter(bindgen::Formatter::Prettyplease)
        .generate()
        .map_err(|error| format!("bindgen: {error}"))?
        .write_to_file(file)
        .map_err(|error| error.to_string())
}
