//! How the end that measures comes by a path, and what it measures over it.

use anyhow::{Context as _, Result, bail};
use genie_channel::Offer;
use genie_poll::LinkConfig;

use crate::control::{Answer, Ask, Control, Link, Open, PATIENCE, PortOrder, Way};
use crate::dpdk::{Dpdk, DpdkPort};
use crate::measure::Measuring;
use crate::options::{How, Memory, Test};
use crate::path::Path;
use crate::report::{Measurement, Report};
use crate::run::{Run, What};
use crate::shm::Behind;
use crate::staged::Staged;
use crate::{hex, shm, tcp};

/// What came of a run of tests.
pub struct Done {
    results: Vec<Measurement>,
    what: What,
    /// What a reader of the numbers should know.
    notes: Vec<String>,
    /// Cores that the other end is pinned to.
    pub pinned_there: usize,
}

impl Done {
    /// The report of `run`.
    #[must_use]
    pub fn report(self, mut run: Run, how: &How) -> Report {
        for note in self.notes {
            run.warn(note);
        }
        let what = What {
            pinned_cores: how.cores.len().min(1) + self.pinned_there,
            ..self.what
        };
        run.report(what, self.results)
    }
}

/// Asks the other end for a path.
fn ask(control: &mut Control, how: &How, link: Link) -> Result<Way> {
    control.send(&Ask::Open(Open {
        link,
        seal: how.seal,
        memory: how.memory,
        device: how.device.to_string(),
    }))?;
    match control.receive(PATIENCE)? {
        Answer::Opened(way) => Ok(way),
        Answer::Lacks { why } | Answer::Refused { why } => bail!("{why}"),
        other => bail!("an unexpected answer: {other:?}"),
    }
}

/// Measures over TCP to `host`, where the other end is.
pub fn over_tcp(control: &mut Control, test: Test, how: &How, host: &str) -> Result<Done> {
    match ask(control, how, Link::Tcp)? {
        Way::Tcp { port, token } => {
            let path = tcp::connect(host, port, &hex::decode(&token)?)?;
            over(path, control, test, how)
        }
        other => bail!("not a way by TCP: {other:?}"),
    }
}

/// Measures over a channel, by its socket, to what is behind it.
pub fn over_shm(
    control: &mut Control,
    test: Test,
    how: &How,
    socket: &std::path::Path,
    behind: Behind,
) -> Result<Done> {
    let link = match behind {
        Behind::Nothing => Link::Shm(socket.to_owned()),
        Behind::Engines { .. } => Link::Engine(socket.to_owned()),
    };
    match ask(control, how, link)? {
        Way::Shm => over(shm::connect(socket, behind)?, control, test, how),
        other => bail!("not a way by shared memory: {other:?}"),
    }
}

/// Opens `link` here, into `port`, and a path to the other end over it. That end takes the port that
/// it is told of, or its own. Before anything here is opened it says whether it has one.
pub fn find<'a>(
    control: &mut Control,
    how: &How,
    order: Option<PortOrder>,
    link: LinkConfig,
    port: &'a mut Option<DpdkPort>,
) -> Result<Dpdk<'a>> {
    match ask(control, how, Link::Dpdk(order))? {
        Way::Dpdk { offer } => {
            let offer = hex::decode::<{ Offer::BYTES }>(&offer).context("the server's offer")?;
            let offer = Offer::decode(&offer)?;
            Dpdk::take(port.insert(DpdkPort::open(link)?), &offer, control)
        }
        other => bail!("not a way by DPDK: {other:?}"),
    }
}

/// Measures over a path.
pub fn over(path: impl Path, control: &mut Control, test: Test, how: &How) -> Result<Done> {
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
    let message_max = measuring.path.message_max() as u64;
    let mut notes = Vec::new();
    let is_message = |one: &Measurement| test != Test::Bw && one.size_bytes <= message_max;
    if how.memory == Memory::Device && results.iter().any(is_message) {
        notes.push(format!(
            "messages (lat and rate up to {message_max} bytes) are the host's: no device had them"
        ));
    }
    let what = What {
        facts: measuring.path.facts(),
        memory: how.memory_name(),
        verified: how.verify,
        pinned_cores: 0,
    };
    Ok(Done {
        results,
        what,
        notes,
        pinned_there: measuring.pinned_there,
    })
}
