//! `local`: both ends on this machine, the other one as a child process.

mod child;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use genie_poll::PortSpec;

use self::child::Child;
use crate::control::{Answer, Control, PortOrder};
use crate::dpdk::DpdkPort;
use crate::hex;
use crate::machine::{self, Setting};
use crate::netns::{self, VethPair};
use crate::options::port::{CLIENT_NETWORK, link};
use crate::options::{LinkKind, Local, Seal, Test};
use crate::report::Report;
use crate::run::Run;
use crate::shm::{Behind, MESSAGE_MAX};
use crate::tcp;
use crate::way::{find, over, over_shm, over_tcp};

pub use self::child::run as run_child;

/// How long the other end may take to say what went wrong there.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Measures the link that `options` ask for.
pub fn run(options: &Local) -> Result<Report> {
    let cores = &options.how.cores;
    if !matches!(cores.len(), 0 | 2) {
        bail!("local has two ends: --cores takes two cores, its own and the other end's");
    }
    let is_message = |size: &u64| *size <= MESSAGE_MAX as u64;
    if options.link == LinkKind::Engine
        && (options.test == Test::Bw || !options.how.sizes(options.test).iter().all(is_message))
    {
        bail!(
            "--link engine is of messages: lat or rate, with sizes up to {MESSAGE_MAX} bytes; \
             measure transfers over memif"
        );
    }
    let mut run = Run::begin(&Setting {
        pinned: cores.len(),
        ends: 2,
        polls: options.link != LinkKind::Tcp,
    });
    let place = Place::new(options.link, options.how.seal)?;
    let (mut child, mut control) = Child::start(cores.get(1).copied())?;
    machine::pin(cores.get(..1).unwrap_or_default())?;
    if let Some(pair) = &place.pair {
        netns::enter(&pair.namespaces[0])?;
    }
    let (test, how) = (options.test, &options.how);
    let mut port = None;
    let done = match place.link {
        Link::Tcp => over_tcp(&mut control, test, how, "127.0.0.1"),
        Link::Shm(socket, behind) => over_shm(&mut control, test, how, &socket, behind),
        Link::Ports(here, there) => {
            let here = link(here, CLIENT_NETWORK, None);
            find(&mut control, how, Some(there), here, &mut port)
                .and_then(|path| over(path, &mut control, test, how))
        }
    };
    if let Some(pages) = port.as_ref().and_then(DpdkPort::pages) {
        run.warn(format!("DPDK runs on {pages}"));
    }
    drop(port);
    let done = done.map_err(|error| with_last_words(error, &mut control));
    drop(control);
    child.end();
    Ok(done?.report(run, how))
}

/// What went wrong, with what the other end says about it if that is something else.
fn with_last_words(error: anyhow::Error, control: &mut Control) -> anyhow::Error {
    let deadline = Instant::now() + LAST_WORDS;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match control.receive(left) {
            Ok(Answer::Refused { why }) if !format!("{error:#}").contains(&why) => {
                return error.context(format!("the other end: {why}"));
            }
            // Of before it went wrong.
            Ok(_) if !left.is_zero() => {}
            _ => return error,
        }
    }
}

/// A link, as this end needs to know it.
enum Link {
    Tcp,
    Shm(PathBuf, Behind),
    /// The port here, and the one of the other end.
    Ports(PortSpec, PortOrder),
}

/// What a link needs of the machine; it goes with the value.
struct Place {
    link: Link,
    pair: Option<VethPair>,
    _folder: Option<Folder>,
}

impl Place {
    fn new(kind: LinkKind, seal: Option<Seal>) -> Result<Self> {
        let (mut pair, mut folder) = (None, None);
        let link = match kind {
            LinkKind::Tcp => Link::Tcp,
            LinkKind::Memif => {
                let made = folder.insert(Folder::new()?);
                let socket = made.0.join("memif.sock");
                let port = |role| format!("memif:{},{role}", socket.display());
                ports([port("client"), port("server")], None)?
            }
            LinkKind::AfXdp => {
                let made = pair.insert(VethPair::new()?);
                let names = made
                    .interfaces
                    .each_ref()
                    .map(|name| format!("af_xdp:{name}"));
                ports(names, Some(made.namespaces[1].clone()))?
            }
            LinkKind::Shm | LinkKind::Engine => {
                let behind = match kind {
                    LinkKind::Engine => Behind::Engines {
                        sealed: seal == Some(Seal::On),
                    },
                    _ => Behind::Nothing,
                };
                let made = folder.insert(Folder::new()?);
                Link::Shm(made.0.join("channel.sock"), behind)
            }
        };
        Ok(Self {
            link,
            pair,
            _folder: folder,
        })
    }
}

fn ports([here, there]: [String; 2], namespace: Option<String>) -> Result<Link> {
    let order = PortOrder {
        port: there,
        namespace,
    };
    Ok(Link::Ports(here.parse()?, order))
}

/// A folder for sockets that only this user enters.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("genie-perf-{}", hex::encode(&tcp::token()?[..8]));
        let path = Path::new("/tmp").join(name);
        let mut builder = std::fs::DirBuilder::new();
        builder
            .mode(0o700)
            .create(&path)
            .with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
