//! Turns the contract into Rust. protox reads it, so that building needs no `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["genie/control/v1/control.proto"], ["proto"])?;
    let mut builder = tonic_prost_build::configure();
    // `genie-dataplane status --json` prints these.
    for message in [
        "StatusReply",
        "Libtorch",
        "OperatorLibrary",
        "Device",
        "Session",
        "Counters",
        "Restriction",
        "NodeState",
        "DeviceState",
    ] {
        let path = format!("genie.control.v1.{message}");
        builder = builder.message_attribute(path, "#[derive(serde::Serialize)]");
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
