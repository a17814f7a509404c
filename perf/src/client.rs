//! `client`: against `genie-perf server`, or a node; the answer tells which it is.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use genie_client::address::Address;
use genie_client::link::resolve;

use crate::control::{Answer, Ask, Control, GREETING, Link, Open, PATIENCE, Way};
use crate::machine::{self, Setting};
use crate::measure::Measuring;
use crate::node;
use crate::options::{Client, How, Memory, Test, Transport};
use crate::path::Path;
use crate::report::{Measurement, Report};
use crate::run::{Run, What};
use crate::staged::Staged;
use crate::{dpdk, hex, shm, tcp};

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
                    bail!(
                        "{address} takes the connection and says nothing: a genie-perf server that \
                         is busy with another client?"
                    );
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
    if options.transport == Transport::Dpdk {
        bail!("genie-perf server speaks TCP: measure DPDK with `local --link memif`");
    }
    let mut run = Run::begin(&Setting {
        pinned: options.how.cores.len().min(1) + 1,
        ends: 2,
        polls: false,
        huge_pages: false,
    });
    let done = measure(&mut control, options.test, &options.how, &Link::Tcp, host)?;
    if done.pinned_there == 0 {
        run.warn("the server is not pinned to a core (server --cores pins it)");
    }
    Ok(done.report(run, &options.how))
}

/// What came of a run of tests.
pub struct Done {
    results: Vec<Measurement>,
    what: What,
    /// Cores that the other end is pinned to.
    pub pinned_there: usize,
}

impl Done {
    /// The report of `run`.
    #[must_use]
    pub fn report(self, run: Run, how: &How) -> Report {
        let what = What {
            pinned_cores: how.cores.len().min(1) + self.pinned_there,
            ..self.what
        };
        run.report(what, self.results)
    }
}

/// Opens a data path by `link` with the other end at `host`, and runs the test.
pub fn measure(
    control: &mut Control,
    test: Test,
    how: &How,
    link: &Link,
    host: &str,
) -> Result<Done> {
    control.send(&Ask::Open(Open {
        link: link.clone(),
        seal: how.seal,
        memory: how.memory,
        device: how.device.to_string(),
    }))?;
    match (control.receive(PATIENCE)?, link) {
        (Answer::Opened(Way::Tcp { port, token }), Link::Tcp) => {
            let path = tcp::connect(host, port, &hex::decode(&token)?)?;
            over(path, control, test, how)
        }
        (Answer::Opened(Way::Dpdk), Link::Dpdk(link)) => {
            let path = dpdk::open(link, dpdk::Ends::Here, how.seal)?;
            over(path, control, test, how)
        }
        (Answer::Opened(Way::Shm), Link::Shm(socket)) => {
            over(shm::connect(socket)?, control, test, how)
        }
        (Answer::Refused { why }, _) => bail!("{why}"),
        (other, _) => bail!("an unexpected answer: {other:?}"),
    }
}

fn over(path: impl Path, control: &mut Control, test: Test, how: &How) -> Result<Done> {
    match how.memory {
        Memory::Host => run_over(path, control, test, how),
        Memory::Device => run_over(Staged::new(path, how.device)?, control, test, how),
    }
}

fn run_over(path: impl Path, control: &mut Control, test: Test, how: &How) -> Result<Done> {
    let mut measuring = Measuring {
        path,
        control,
        how,
        pinned_there: 0,
    };
    let results = measuring.run(test)?;
    let what = What {
        facts: measuring.path.facts(),
        memory: match how.memory {
            Memory::Host => "host".to_owned(),
            Memory::Device => how.device.to_string(),
        },
        verified: how.verify,
        pinned_cores: 0,
    };
    Ok(Done {
        results,
        what,
        pinned_there: measuring.pinned_there,
    })
}
