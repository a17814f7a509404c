//! What the tests share.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod dialogue;
mod eal;

use genie_dpdk::{Eal, Mempool, MempoolConfig};

pub use eal::eal;

pub fn pool(eal: &Eal, name: &str, mbufs: u32, data_bytes: u16) -> Mempool {
    Mempool::new(eal, MempoolConfig::new(name, mbufs, data_bytes)).unwrap()
}
