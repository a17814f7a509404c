//! Against a node: a session that only moves bytes, through its executor.

mod measure;
mod peer;

use anyhow::{Result, bail};

use self::peer::Peer;
use crate::interrupt;
use crate::machine::Setting;
use crate::options::{Client, Memory, Seal, Transport};
use crate::path::Facts;
use crate::report::Report;
use crate::run::{Run, What};
use crate::tcp;

/// Measures what `options` ask for.
pub fn run(options: &Client) -> Result<Report> {
    let how = &options.how;
    if options.transport == Transport::Dpdk {
        bail!("this client reaches a node by TCP: take --transport tcp, or auto");
    }
    if how.memory == Memory::Device {
        bail!("a node's own memory is its choice (genie-dataplane --device): leave --memory out");
    }
    let seal = if options.ca.is_some() {
        Seal::On
    } else {
        Seal::Off
    };
    if how.seal.is_some_and(|wanted| wanted != seal) {
        bail!("a node's link is sealed by TLS: --ca, --cert and --key turn it on");
    }
    let mut peer = Peer::open(options)?;
    let mut run = Run::begin(&Setting {
        pinned: how.cores.len(),
        ends: 1,
        polls: false,
        huge_pages: false,
    });
    run.warn("a node's CPU time is not known here: Gbit/s per core counts this end alone");
    let mut results = Vec::new();
    for size in how.sizes(options.test) {
        if interrupt::asked() {
            break;
        }
        results.extend(measure::one(&mut peer, options, size)?);
    }
    let transport = match peer.opened.transports.first().map(String::as_str) {
        Some("dpdk") => "dpdk",
        Some("shm") => "shm",
        _ => "tcp",
    };
    let facts = Facts {
        transport,
        path: "to and from the session's arena, shared with its executor".to_owned(),
        mtu_bytes: tcp::mtu(peer.descriptor()),
        seal: if seal == Seal::On { "tls" } else { "off" },
    };
    peer.close();
    let what = What {
        facts,
        memory: "host".to_owned(),
        verified: how.verify,
        pinned_cores: how.cores.len().min(1),
    };
    Ok(run.report(what, results))
}
