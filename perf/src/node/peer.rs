//! A session with a node that only moves bytes: the engine that programs have, without torch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use genie_client::address::{Address, Tls};
use genie_client::bare::{self, Bare};
use genie_client::engine::{Asked, Host, Interrupted, Opened, Origin, Session};
use genie_session::client::Draft;
use genie_session::record;
use genie_session::skeleton::tag;

use crate::options::Client;

const TIMEOUT: Duration = Duration::from_secs(5);
const BYTE: u8 = 0;
/// No program has a line here.
const NOWHERE: u32 = 0;

/// A session that only moves bytes.
pub struct Peer(Arc<Session>);

/// This program has no handlers to run within a wait, and no lines to name.
struct Plain;

impl Host for Plain {
    fn look_at_signals(&self) -> Result<(), Interrupted> {
        Ok(())
    }

    fn runs_handlers(&self) -> bool {
        false
    }

    fn is_interrupt_waiting(&self) -> bool {
        false
    }

    fn operator(&self, _: u32) -> String {
        String::new()
    }

    fn line(&self, _: u32) -> String {
        String::new()
    }

    fn rest(&self) {}
}

impl Peer {
    /// Opens a session with the node that `options` name.
    pub fn open(options: &Client) -> Result<Self> {
        let address = Address::parse(&options.address)?;
        let tls = Tls::from_files(
            options.ca.as_deref(),
            options.cert.as_deref(),
            options.key.as_deref(),
        )?;
        let version = format!("perf {}", env!("CARGO_PKG_VERSION"));
        let Bare {
            link,
            control,
            opened,
        } = bare::open(&address, tls.as_ref(), &version, TIMEOUT)?;
        let opened = Opened {
            node: options.address.clone(),
            device: 0,
            reply: opened,
            link,
            control,
        };
        let session = Session::start(1, vec![opened], Box::new(Plain))?;
        Ok(Self(session))
    }

    /// A new storage of `bytes` bytes.
    pub fn alloc(&self, bytes: u64) -> Result<u64> {
        let (lane, bytes) = (self.0.first(), [bytes as i64]);
        let draft = Draft::alloc(&bytes);
        let appended = self.0.record(lane, &draft, "", Origin::NONE, NOWHERE)?;
        Ok(appended.first_fresh)
    }

    /// Overwrites a storage. Small messages leave with what is asked next.
    pub fn put(&self, storage: u64, bytes: &[u8]) -> Result<()> {
        let lane = self.0.first();
        // SAFETY: the memory is borrowed for the call.
        Ok(unsafe {
            self.0
                .upload(lane, storage, bytes.as_ptr(), bytes.len(), NOWHERE)
        }?)
    }

    /// Asks for as many of a storage's bytes as `into` takes.
    pub fn ask(&self, storage: u64, into: Vec<u8>) -> Result<Asked<'_>> {
        let draft = Draft {
            skeleton: &[tag::TENSOR, 0, BYTE, 1],
            storages: &[storage],
            params: &[0, into.len() as i64, 1],
            ..Draft::new(record::Kind::Fetch)
        };
        Ok(self.0.start_fetch(self.0.first(), &draft, into, NOWHERE)?)
    }

    /// Asks to be told when all before it has run.
    pub fn barrier(&self) -> Result<Asked<'_>> {
        Ok(self.0.start_barrier(self.0.first(), NOWHERE)?)
    }

    /// What really carries the data, and why it is this.
    pub fn transport(&self) -> (&'static str, String) {
        let (name, reason) = self.0.first().link.transport();
        (name, reason.to_owned())
    }

    /// The data path's socket, to ask the kernel about.
    pub fn descriptor(&self) -> i32 {
        self.0.first().link.descriptor()
    }

    /// Ends the session.
    pub fn close(&self) {
        self.0.close();
    }
}
