//! What the build script made of `proto/genie/srg/v1`. The definition carries the documentation.

#![allow(clippy::all)]
#![allow(missing_docs)]

include!(concat!(env!("OUT_DIR"), "/genie.srg.v1.rs"));
include!(concat!(env!("OUT_DIR"), "/genie.srg.v1.serde.rs"));
