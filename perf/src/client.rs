//! `client`: against `genie-perf server`, or a node; the answer tells which it is.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use genie_client::address::Address;
use genie_client::link::resolve;

use crate::control::{Control, GREETING};
use crate::dpdk::DpdkPort;
use crate::machine::{self, Setting};
use crate::node;
use crate::options::port::CLIENT_NETWORK;
use crate::options::{Client, Transport};
use crate::report::Report;
use crate::run::Run;
use crate::way::{Done, find, over, over_tcp};

const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to greet. A node answers at once, with an error.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Measures what `options` ask for.
pub fn run(options: &Client) -> Result<Report> {
    machine::pin(&options.how.cores)?;
    let address = Address::parse(&options.address)?;
    let Address::Node { host, .. } = &address else {
        return node::run(options);
    };
    if options.transport == Transport::Shm {
        bail!("shared memory does not reach {address}: measure it with `local --link shm`");
    }
    // Certificates are for nodes.
    if options.ca.is_none()
        && let Some(control) = greet(&address)?
    {
        return against_server(options, host, control);
    }
    node::run(options)
}

/// The control connection, if a genie-perf server answers.
fn greet(address: &Address) -> Result<Option<Control>> {
    let nobody = || format!("no node answers at {address}, and no genie-perf server");
    let mut failure = None;
    for candidate in resolve(address).with_context(nobody)? {
        match TcpStream::connect_timeout(&candidate, TIMEOUT) {
            Ok(socket) => {
                let mut control = Control::over_tcp(socket)?;
                control.send_bytes(GREETING)?;
                if control.expect(GREETING, GREETING_TIMEOUT)? {
                    return Ok(Some(control));
                }
                if control.was_silent() {
                    bail!("{address} takes the connection and says nothing");
                }
                return Ok(None);
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error).with_context(nobody),
        None => bail!(nobody()),
    }
}

fn against_server(options: &Client, host: &str, mut control: Control) -> Result<Report> {
    let how = &options.how;
    let link = options.port.link(CLIENT_NETWORK);
    let mut port = None;
    let why_tcp = match (options.transport, link) {
        (Transport::Tcp | Transport::Shm, _) => None,
        (Transport::Dpdk, None) => {
            bail!("--transport dpdk drives a port of this end too: --dpdk-port names it")
        }
        (Transport::Auto, None) => Some("this end was given no DPDK port (--dpdk-port)".to_owned()),
        (wanted, Some(link)) => {
            let found = find(&mut control, how, None, link, &mut port);
            let measured = found.map(|path| {
                let run = begin(options, true);
                (run, over(path, &mut control, options.test, how))
            });
            match measured {
                Ok((run, done)) => return Ok(report(run, done?, options, port.as_ref())),
                Err(error) if wanted == Transport::Dpdk => return Err(error),
                Err(error) => Some(format!("{error:#}")),
            }
        }
    };
    let mut run = begin(options, false);
    if let Some(why) = why_tcp {
        run.warn(format!("TCP, not DPDK: {why}"));
    }
    let done = over_tcp(&mut control, options.test, how, host)?;
    Ok(report(run, done, options, None))
}

fn begin(options: &Client, polls: bool) -> Run {
    Run::begin(&Setting {
        pinned: options.how.cores.len().min(1),
        ends: 1,
        polls,
    })
}

fn report(mut run: Run, done: Done, options: &Client, port: Option<&DpdkPort>) -> Report {
    if let Some(pages) = port.and_then(DpdkPort::pages) {
        run.warn(format!("DPDK runs on {pages}"));
    }
    if done.pinned_there == 0 {
        run.warn("the server is not pinned to a core (server --cores pins it)");
    }
    done.report(run, &options.how)
}
