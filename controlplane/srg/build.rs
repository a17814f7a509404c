//! Turns the schema into Rust: messages by prost, their canonical proto3 JSON by pbjson. protox reads the
//! definition, so that building needs no `protoc`.

use std::{env, error::Error, path::PathBuf};

use protox::prost::Message;

const PROTO_DIR: &str = "proto";
const FILES: [&str; 2] = ["genie/srg/v1/srg.proto", "genie/srg/v1/plan.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_DIR}");
    let descriptors = protox::compile(FILES, [PROTO_DIR])?;
    let encoded = descriptors.encode_to_vec();

    // Ordered maps: one graph has one encoding.
    prost_build::Config::new()
        .btree_map(["."])
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map(["."])
        .out_dir(PathBuf::from(env::var("OUT_DIR")?))
        .build(&[".genie.srg.v1"])?;
    Ok(())
}
