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
    if how.memory == Memory::Device {
        bail!("a node's memory is its own choice (genie-dataplane --device): take --memory host");
    }
    if options.port.dpdk_port.is_some() {
        bail!(
            "{} is a node, or nobody, and --dpdk-port is for genie-perf server: to a node DPDK is \
             its gateway's (client unix://SOCKET)",
            options.address
        );
    }
    let seal = if options.ca.is_some() {
        Seal::On
    } else {
        Seal::Off
    };
    if how.seal.is_some_and(|wanted| wanted != seal) {
        bail!("a node's link is sealed by TLS: --ca, --cert and --key turn it on");
    }
    let peer = Peer::open(options)?;
    let (transport, reason) = peer.transport();
    let wanted = match options.transport {
        Transport::Auto => transport,
        Transport::Dpdk => "dpdk",
        Transport::Tcp => "tcp",
        Transport::Shm => "shm",
    };
    if wanted != transport {
        peer.close();
        bail!("--transport {wanted}, but the data would go by {transport}: {reason}");
    }
    let mut run = Run::begin(&Setting {
        pinned: how.cores.len(),
        ends: 1,
        polls: false,
    });
    run.warn("a node's CPU time is not known here: Gbit/s per core counts this end alone");
    let mut results = Vec::new();
    for size in how.sizes(options.test) {
        if interrupt::asked() {
            break;
        }
        results.extend(measure::one(&peer, options, size)?);
    }
    let facts = Facts {
        transport,
        path: format!("{reason}; to and from the session's arena, shared with its executor"),
        // The kernel knows of a socket only.
        mtu_bytes: if transport == "tcp" {
            tcp::mtu(peer.descriptor())
        } else {
            0
        },
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
