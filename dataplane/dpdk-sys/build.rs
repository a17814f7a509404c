//! Builds the shims against the DPDK that pkg-config finds and generates the bindings for them.
//! Where something is missing, the crate compiles all the same and knows the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A piece of C with its bindings. DPDK's gpudev has one of its own, so that a host may lack that
/// library alone.
struct Shim {
    /// Of `shim/NAME.c`, `shim/NAME.h` and the results.
    name: &'static str,
    /// The libraries whose symbols it names. Drivers are plug-ins that EAL finds by itself.
    libraries: &'static [&'static str],
    /// The type of the table of functions.
    table: &'static str,
    /// DPDK's own functions that Rust calls by name.
    functions: &'static str,
    types: &'static str,
    constants: &'static str,
    /// Types that are not generated, and what stands for them.
    foreign: &'static str,
    lines: &'static [&'static str],
}

const SHIMS: [Shim; 2] = [
    Shim {
        name: "shim",
        libraries: &[
            "rte_eal",
            "rte_ethdev",
            "rte_mbuf",
            "rte_mempool",
            "rte_ring",
        ],
        table: "Api",
        functions: FUNCTIONS,
        types: "genie_dpdk_.*",
        constants: "GENIE_.*",
        // Only pointers to these are handed about; unnamed parts of them change between releases.
        foreign: "rte_mbuf.*|rte_mempool.*|rte_device|rte_intr_handle",
        lines: &[
            "#[repr(C)] pub struct rte_mbuf { _opaque: [u8; 0] }",
            "#[repr(C)] pub struct rte_mempool { _opaque: [u8; 0] }",
            "#[repr(C)] pub struct rte_device { _opaque: [u8; 0] }",
            "#[repr(C)] pub struct rte_intr_handle { _opaque: [u8; 0] }",
        ],
    },
    Shim {
        name: "gpudev",
        libraries: &["rte_gpudev"],
        table: "GpuApi",
        functions: "rte_gpu_.*",
        types: "rte_gpu.*",
        constants: "GENIE_GPU_.*",
        foreign: "rte_mbuf.*|rte_mempool.*|rte_memzone|rte_device",
        lines: &["use crate::{rte_device, rte_mbuf};"],
    },
];

const FUNCTIONS: &str = "genie_dpdk_.*|rte_eal_(init|cleanup)|rte_eal_hotplug_(add|remove)\
    |rte_dev_probe|rte_dev_remove|rte_strerror|rte_version|rte_thread_(un)?register\
    |rte_pktmbuf_pool_create(_extbuf)?|rte_pktmbuf_free_bulk\
    |rte_mempool_(free|avail_count|in_use_count)\
    |rte_extmem_(un)?register|rte_dev_dma_(un)?map|rte_eal_iova_mode\
    |rte_intr_(instance_(alloc|free)|fd_[gs]et|type_set)|rte_epoll_wait|rte_log_set_level_pattern\
    |rte_eth_dev_(get_port_by_name|info_get|configure|adjust_nb_rx_tx_desc|start|stop|close\
    |get_mtu|set_mtu|socket_id)|rte_eth_(rx|tx)_queue_setup|rte_eth_macaddr_get\
    |rte_eth_promiscuous_enable|rte_eth_stats_(get|reset)|rte_eth_dev_count_avail\
    |rte_eth_dev_rx_intr_(enable|disable|ctl_q)";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(dpdk_built, gpudev_built)");
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=src/bindings_22_11.rs");
    println!("cargo::rerun-if-changed=src/gpudev_22_11.rs");
    for variable in [
        "GENIE_DPDK",
        "PKG_CONFIG",
        "PKG_CONFIG_PATH",
        "PKG_CONFIG_LIBDIR",
        "LIBCLANG_PATH",
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let flags = find();
    tell("dpdk_built", "GENIE_DPDK_BUILD", build(&SHIMS[0], &flags));
    tell(
        "gpudev_built",
        "GENIE_GPUDEV_BUILD",
        build(&SHIMS[1], &flags),
    );
}

/// Tells the crate the version built against, or why there is none.
fn tell(cfg: &str, variable: &str, result: Result<String, String>) {
    let text = match result {
        Ok(version) => {
            println!("cargo::rustc-cfg={cfg}");
            version
        }
        Err(reason) => reason.trim().replace('\n', "; "),
    };
    println!("cargo::rustc-env={variable}={text}");
}

/// DPDK's version and the flags to compile with, or why it can't be used.
fn find() -> Result<(String, Vec<String>), String> {
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
    let flags = pkg_config(&["--cflags"])?
        .split_whitespace()
        .chain(["-DALLOW_EXPERIMENTAL_API", "-DALLOW_INTERNAL_API"])
        .map(str::to_owned)
        .collect();
    Ok((version, flags))
}

/// Makes a shim and its bindings. Says the version that they are for.
fn build(shim: &Shim, found: &Result<(String, Vec<String>), String>) -> Result<String, String> {
    let (version, flags) = found.as_ref().map_err(String::clone)?;
    let out = std::env::var("OUT_DIR").map_err(|error| error.to_string())?;
    let out = PathBuf::from(out);
    compile(shim, flags, &out.join(format!("{}.so", shim.name)))?;
    generate(shim, flags, &out.join(format!("{}.rs", shim.name)))?;
    Ok(version.clone())
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

fn compile(shim: &Shim, flags: &[String], library: &Path) -> Result<(), String> {
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
            "-Werror=implicit-function-declaration",
        ])
        .args(flags)
        .arg(format!("shim/{}.c", shim.name))
        .arg("-o")
        .arg(library)
        .args(pkg_config(&["--libs-only-L"])?.split_whitespace())
        .arg("-Wl,--no-as-needed")
        .arg(format!("-Wl,-soname,libgenie_dpdk_{}.so", shim.name))
        .args(shim.libraries.iter().map(|name| format!("-l{name}")));
    let output = command
        .output()
        .map_err(|error| format!("the C compiler can't be run: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("shim/{}.c does not compile: {message}", shim.name))
    }
}

fn generate(shim: &Shim, flags: &[String], file: &Path) -> Result<(), String> {
    // bindgen panics where libclang is missing, so it is asked for first.
    clang_sys::load().map_err(|error| format!("no libclang (install libclang-dev): {error}"))?;
    let builder = bindgen::Builder::default()
        .header(format!("shim/{}.h", shim.name))
        .clang_args(flags)
        .dynamic_library_name(shim.table)
        .dynamic_link_require_all(true)
        .allowlist_function(shim.functions)
        .allowlist_function("genie_dpdk_.*")
        .allowlist_type(shim.types)
        .allowlist_var(shim.constants)
        .blocklist_type(shim.foreign)
        .opaque_type("rte_eth_(dcb|vmdq).*")
        .derive_default(true)
        .generate_comments(false)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .rust_target(bindgen::RustTarget::stable(88, 0).map_err(|error| error.to_string())?)
        .formatter(bindgen::Formatter::Prettyplease);
    let add = |builder: bindgen::Builder, line: &&str| builder.raw_line(*line);
    let builder = shim.lines.iter().fold(builder, add);
    builder
        .generate()
        .map_err(|error| format!("bindgen: {error}"))?
        .write_to_file(file)
        .map_err(|error| error.to_string())
}
