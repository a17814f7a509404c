//! The other end of a measurement.

mod serving;

use anyhow::{Result, bail};

use self::serving::serve_tests;
use crate::control::{Answer, Ask, Control, Link, Open, PATIENCE, Way};
use crate::dpdk::{Dpdk, DpdkPort};
use crate::options::port::{SERVER_NETWORK, link};
use crate::options::{Memory, Seal};
use crate::path::Path;
use crate::staged::Staged;
use crate::{hex, netns, shm, tcp};

/// Data paths that one client may ask for until one comes about.
const PATHS_MAX: usize = 8;

/// What an end lends to the one that measures.
pub enum Lends<'a> {
    /// To anybody: its own port, if it has one.
    Port(Option<&'a mut DpdkPort>),
    /// To the process that started it: what that names.
    Anything,
}

/// Serves one client until it says goodbye, or is gone.
pub fn serve(control: &mut Control, pinned: usize, mut lends: Lends<'_>) -> Result<()> {
    let outcome = serve_paths(control, pinned, &mut lends);
    if let Err(error) = &outcome {
        let why = format!("{error:#}");
        // If it is gone, nobody wants to know.
        let _ = control.send(&Answer::Refused { why });
    }
    outcome
}

fn serve_paths(control: &mut Control, pinned: usize, lends: &mut Lends<'_>) -> Result<()> {
    let mut ask = control.receive(PATIENCE)?;
    for _ in 0..PATHS_MAX {
        let open = match ask {
            Ask::Open(open) => open,
            Ask::Bye => return Ok(()),
            other => bail!("{other:?} before there was a data path"),
        };
        match serve_path(control, &open, pinned, lends)? {
            None => return Ok(()),
            Some(instead) => ask = instead,
        }
    }
    bail!("none of {PATHS_MAX} data paths came about")
}

/// Serves the tests of a path. What is asked for instead, if it is of no use to the other end.
fn serve_path(
    control: &mut Control,
    open: &Open,
    pinned: usize,
    lends: &mut Lends<'_>,
) -> Result<Option<Ask>> {
    let mut ordered = None;
    match (&open.link, lends) {
        (Link::Shm(_), _) if open.seal == Some(Seal::On) => {
            bail!("shared memory between two processes is not sealed: take --seal off")
        }
        (Link::Tcp, _) if open.seal == Some(Seal::On) => bail!(
            "genie-perf's own TCP path is not sealed: measure a node with --ca, or take --seal off"
        ),
        (Link::Tcp, _) => {
            let listener = tcp::listen(control)?;
            let token = tcp::token()?;
            control.send(&Answer::Opened(Way::Tcp {
                port: listener.local_addr()?.port(),
                token: hex::encode(&token),
            }))?;
            let path = tcp::accept(&listener, &token, control)?;
            tests(control, open, path, pinned)
        }
        (Link::Shm(socket), Lends::Anything) => {
            let path = shm::listen(socket, || control.send(&Answer::Opened(Way::Shm)))?;
            tests(control, open, path, pinned)
        }
        (Link::Engine(socket), Lends::Anything) => {
            let sealed = open.seal == Some(Seal::On);
            let ready = || control.send(&Answer::Opened(Way::Shm));
            let path = shm::listen_with_engines(socket, sealed, ready)?;
            tests(control, open, path, pinned)
        }
        (Link::Dpdk(None), Lends::Port(Some(port))) => over_port(control, open, port, pinned),
        (Link::Dpdk(Some(order)), Lends::Anything) => {
            if let Some(namespace) = &order.namespace {
                netns::enter(namespace)?;
            }
            let link = link(order.port.parse()?, SERVER_NETWORK, None);
            over_port(control, open, ordered.insert(DpdkPort::open(link)?), pinned)
        }
        (Link::Dpdk(None), _) => {
            let why = "the server has no DPDK port (genie-perf server --dpdk-port gives it one)";
            control.send(&Answer::Lacks {
                why: why.to_owned(),
            })?;
            control.receive(PATIENCE).map(Some)
        }
        (Link::Dpdk(Some(_)) | Link::Shm(_) | Link::Engine(_), Lends::Port(_)) => {
            bail!("a server's ports and files are not for strangers: measure them with `local`")
        }
    }
}

fn over_port(
    control: &mut Control,
    open: &Open,
    port: &mut DpdkPort,
    pinned: usize,
) -> Result<Option<Ask>> {
    let (mut path, offer) = Dpdk::offer(port, open.seal)?;
    let offer = hex::encode(&offer.encode());
    control.send(&Answer::Opened(Way::Dpdk { offer }))?;
    match path.meet(control)? {
        None => tests(control, open, path, pinned),
        instead => Ok(instead),
    }
}

fn tests(
    control: &mut Control,
    open: &Open,
    path: impl Path,
    pinned: usize,
) -> Result<Option<Ask>> {
    match open.memory {
        Memory::Host => serve_tests(control, path, pinned),
        Memory::Device => serve_tests(control, Staged::new(path, open.device.parse()?)?, pinned),
    }
}
