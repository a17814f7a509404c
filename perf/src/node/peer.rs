//! A bare client of the data path: no torch, one thread, its own buffers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use genie_client::address::{Address, Tls};
use genie_client::bare::{self, Bare};
use genie_client::control::Control;
use genie_client::link::Link;
use genie_control_api::v1::{CloseSessionRequest, OpenSessionReply};
use genie_session::client::{ClientLog, Draft, Message};
use genie_session::fault::Fault;
use genie_session::frame::{HEADER_BYTES, Header, Kind};
use genie_session::record::{self, INLINE_MAX};
use genie_session::skeleton::tag;

use crate::options::Client;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the node is given up.
const SILENCE: Duration = Duration::from_secs(10);
const BYTE: u8 = 0;

/// A session that only moves bytes.
pub struct Peer {
    link: Link,
    control: Control,
    pub opened: OpenSessionReply,
    log: ClientLog,
    next_fetch: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
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
        Ok(Self {
            link,
            control,
            opened,
            log: ClientLog::new(),
            next_fetch: 1,
            buffer: vec![0; 64 << 10],
            start: 0,
            end: 0,
        })
    }

    /// A new storage of `bytes` bytes.
    pub fn alloc(&mut self, bytes: u64) -> Result<u64> {
        let draft = Draft {
            tail_numbers: &[bytes as i64],
            fresh: 1,
            ..Draft::new(record::Kind::Alloc)
        };
        Ok(self.log.append(&draft)?.first_fresh)
    }

    /// Overwrites a storage. Small messages wait for [`Peer::ask`].
    pub fn put(&mut self, storage: u64, bytes: &[u8]) -> Result<()> {
        if bytes.len() <= INLINE_MAX {
            let draft = Draft {
                storages: &[storage],
                tail: &[0],
                tail_numbers: &[bytes.len() as i64],
                blob: Some(bytes),
                ..Draft::new(record::Kind::Upload)
            };
            self.log.append(&draft)?;
            return Ok(());
        }
        let (before, message) = self.log.append_bulk(storage, bytes.len() as u64)?;
        if let Some(before) = before {
            self.write(&before, &[])?;
        }
        self.write(&message, bytes)
    }

    /// Asks for a storage's bytes; gives the number of the question.
    pub fn ask(&mut self, storage: u64, bytes: u64) -> Result<u64> {
        let id = self.next_fetch;
        self.next_fetch += 1;
        let draft = Draft {
            skeleton: &[tag::TENSOR, 0, BYTE, 1],
            storages: &[storage],
            params: &[0, bytes as i64, 1],
            tail_numbers: &[id as i64],
            ..Draft::new(record::Kind::Fetch)
        };
        self.log.append(&draft)?;
        self.flush()?;
        Ok(id)
    }

    /// Asks to be told when all before it has run.
    pub fn barrier(&mut self) -> Result<u64> {
        let id = self.next_fetch;
        self.next_fetch += 1;
        let draft = Draft {
            tail_numbers: &[id as i64],
            ..Draft::new(record::Kind::Barrier)
        };
        self.log.append(&draft)?;
        self.flush()?;
        Ok(id)
    }

    /// Waits for the answer to question `id`; the bytes go to `into`.
    pub fn answer(&mut self, id: u64, into: &mut [u8]) -> Result<()> {
        let mut at = 0_usize;
        loop {
            let header = self.frame_header()?;
            match header.kind {
                Kind::Data if header.seq == id => {
                    let end =
                        usize::try_from(header.aux).map_or(usize::MAX, |n| at.saturating_add(n));
                    let Some(part) = into.get_mut(at..end) else {
                        bail!("the node sent more than the {} bytes asked for", into.len());
                    };
                    if self.link.takes_apart(header.aux) {
                        self.bulk(header.aux, part)?;
                    } else {
                        self.exact(part)?;
                    }
                    at = end;
                    if at == into.len() {
                        return Ok(());
                    }
                }
                Kind::Synced if header.seq == id => return Ok(()),
                Kind::Ack => self.log.acknowledged(header.seq, header.aux)?,
                Kind::Fault | Kind::FetchFault | Kind::Lost => {
                    let mut payload = vec![0; header.payload_len as usize];
                    self.exact(&mut payload)?;
                    bail!("the node says: {}", Fault::decode(&payload)?.message);
                }
                Kind::Pong => {}
                // Nothing here asks for a plan, so nothing refuses one.
                other => bail!("an unexpected frame: {other:?}"),
            }
        }
    }

    /// Bytes that do not come inside the stream.
    fn bulk(&mut self, len: u64, into: &mut [u8]) -> Result<()> {
        let mut heard = Instant::now();
        let mut go_on = |came: bool| {
            if came {
                heard = Instant::now();
            }
            match heard.elapsed() < SILENCE {
                true => Ok(()),
                false => Err(std::io::ErrorKind::TimedOut.into()),
            }
        };
        self.link
            .take_bulk(len, Some(into), &mut go_on)
            .context("the node was lost while receiving")?
            .map_err(|why| anyhow::anyhow!("the node's bytes did not come: {why}"))
    }

    /// What really carries the data, and why it is this.
    pub fn transport(&self) -> (&'static str, String) {
        let (name, reason) = self.link.transport();
        (name, reason.to_owned())
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> Result<()> {
        // Nothing here repeats often enough to need a plan's analysis.
        while let Some(submission) = self.log.take_submission() {
            self.log.plan_answered(submission.plan, false);
        }
        while let Some(message) = self.log.flush() {
            self.write(&message, &[])?;
            self.log.recycle(message.payload);
        }
        Ok(())
    }

    fn write(&mut self, message: &Message, raw: &[u8]) -> Result<()> {
        let began = Instant::now();
        let mut go_on = || match began.elapsed() < SILENCE {
            true => Ok(()),
            false => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let header = message.header.encode();
        self.link
            .write_frame(&header, &message.payload, raw, &mut go_on)
            .context("the node was lost while sending")
    }

    fn frame_header(&mut self) -> Result<Header> {
        let mut raw = [0; HEADER_BYTES];
        self.exact(&mut raw)?;
        Ok(Header::decode(&raw)?)
    }

    fn exact(&mut self, mut into: &mut [u8]) -> Result<()> {
        let began = Instant::now();
        while !into.is_empty() {
            if self.start < self.end {
                let n = into.len().min(self.end - self.start);
                into[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
                self.start += n;
                into = &mut into[n..];
                continue;
            }
            let lost = "the node was lost while receiving";
            if into.len() >= self.buffer.len() {
                if let Some(n) = self.link.read(into).context(lost)? {
                    into = &mut into[n..];
                }
            } else if let Some(n) = self.link.read(&mut self.buffer).context(lost)? {
                (self.start, self.end) = (0, n);
            }
            if began.elapsed() > SILENCE {
                bail!("the node has not answered for {SILENCE:?}");
            }
        }
        Ok(())
    }

    /// The data path's socket, to ask the kernel about.
    pub fn descriptor(&self) -> i32 {
        self.link.descriptor()
    }

    /// Ends the session.
    pub fn close(self) {
        let request = CloseSessionRequest {
            session_id: self.opened.session_id,
            data_token: self.opened.data_token.clone(),
        };
        self.link.shutdown();
        self.control.close(request, TIMEOUT);
    }
}
