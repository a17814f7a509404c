//! Lets clients in, one at a time. A thread of its own, so that who comes while another is served
//! is told so.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::control::{Answer, Control, GREETING, readable};
use crate::interrupt;

/// How often it looks whether somebody wants it to end.
const LOOK: Duration = Duration::from_millis(200);
/// How long a newcomer may take to say what it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a newcomer waits for its turn: the one before may just be leaving.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one that is sent away may take to read why.
const PARTING: Duration = Duration::from_secs(1);

/// Where clients come in.
pub struct Door {
    guests: Receiver<Guest>,
    address: SocketAddr,
}

/// A client whose turn it is, until this is dropped.
pub struct Guest {
    /// What it says.
    pub control: Control,
    /// From where.
    pub peer: SocketAddr,
    _turn: Turn,
}

/// Somebody is served.
struct Turn(Arc<AtomicBool>);

impl Turn {
    /// The turn, as soon as nobody else has it. `None` if that takes too long.
    fn wait(busy: &Arc<AtomicBool>) -> Option<Self> {
        let began = Instant::now();
        while busy.swap(true, Ordering::AcqRel) {
            if began.elapsed() > TURN_TIMEOUT {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self(Arc::clone(busy)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Door {
    /// Opens it.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind(address).with_context(|| format!("can't listen on {address}"))?;
        let address = listener.local_addr()?;
        let (sender, guests) = sync_channel(1);
        std::thread::Builder::new()
            .name("genie-perf-door".to_owned())
            .spawn(move || mind(&listener, &sender))
            .context("no thread to let clients in")?;
        Ok(Self { guests, address })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next client, if one comes within `timeout`.
    pub fn next(&self, timeout: Duration) -> Result<Option<Guest>> {
        match self.guests.recv_timeout(timeout) {
            Ok(guest) => Ok(Some(guest)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) if interrupt::asked() => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("nobody lets clients in any more"),
        }
    }
}

fn mind(listener: &TcpListener, guests: &SyncSender<Guest>) {
    let busy = Arc::new(AtomicBool::new(false));
    while !interrupt::asked() {
        if !readable(listener.as_raw_fd(), LOOK) {
            continue;
        }
        let (socket, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // It left again, or there are no descriptors now: the next one may fare better.
            Err(error) => {
                eprintln!("genie-perf: nobody could be let in: {error}");
                std::thread::sleep(LOOK);
                continue;
            }
        };
        match let_in(socket, peer, &busy) {
            Ok(Some(guest)) => {
                if guests.send(guest).is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => eprintln!("genie-perf: {peer}: {error:#}"),
        }
    }
}

fn let_in(socket: TcpStream, peer: SocketAddr, busy: &Arc<AtomicBool>) -> Result<Option<Guest>> {
    let mut control = Control::over_tcp(socket)?;
    if !control.expect(GREETING, GREETING_TIMEOUT)? {
        bail!("not a genie-perf client of this version");
    }
    control.send_bytes(GREETING)?;
    let Some(turn) = Turn::wait(busy) else {
        let why = "the server is busy with another client: try again when that is done";
        let why = why.to_owned();
        control.part(&Answer::Refused { why }, PARTING);
        return Ok(None);
    };
    Ok(Some(Guest {
        control,
        peer,
        _turn: turn,
    }))
}
