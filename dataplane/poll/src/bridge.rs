//! Between a program's channel and its connection: the byte stream as messages, bulk as transfers.
//!
//! Messages carry, after a byte that says which:
//! - stream: the next bytes of the program's stream;
//! - grant: the n-th one answers the n-th bulk that the peer announced in its stream, and says
//!   where it may go;
//! - refuse: the same, when the bulk is not wanted: nothing of it travels;
//! - finish: nothing follows.
//!
//! Both programs know from the stream when bulk is due and how long it is, so nothing else need be
//! said.

use std::collections::VecDeque;

use genie_channel::{ChannelError, FromApp, LoopHalf, ToApp, ended, failed};
use genie_transport::limits::{GRANTS_MAX, MESSAGE_BYTES_MAX, TRANSFERS_MAX};
use genie_transport::{
    Connection, Event, Grant, GrantError, MessageError, Priority, RegionId, SendError, Transfer,
    TransferId,
};

use crate::memory::{Memory, MemoryId};

const STREAM: u8 = 1;
const GRANT: u8 = 2;
const REFUSE: u8 = 3;
const FINISH: u8 = 4;
const GRANT_BYTES: usize = 1 + 3 * 8;
/// Stream bytes in one message.
const STREAM_MAX: usize = MESSAGE_BYTES_MAX - 1;
/// Bulk up to this goes before longer bulk of the same program, which it delays by little.
const SOON_MAX: u64 = 256 << 10;
/// Commands of a program that one turn takes, so that others have theirs.
const COMMANDS_A_TURN: usize = 64;
/// Bulks of one program that may be under way in one direction.
const BULKS_MAX: usize = 256;

const _: () = assert!(BULKS_MAX <= TRANSFERS_MAX && BULKS_MAX <= GRANTS_MAX);

/// Why a bridge ends.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The program's half is gone or damaged.
    #[error("the program: {0}")]
    App(#[from] ChannelError),
    /// The peer's messages make no sense.
    #[error("the peer broke the protocol: {0}")]
    Peer(&'static str),
}

/// What waits to become messages.
enum Leaving {
    Nothing,
    /// From here on of `bytes`.
    Stream(usize),
    /// All of `bytes`, as one.
    Whole,
}

/// Something for the program that found no room.
enum News {
    Sent(u64),
    Received(u64),
    Failed(u64, u8, String),
    Ended(u8, String),
}

/// One program's side of one connection.
pub(crate) struct Bridge {
    half: LoopHalf,
    source: Option<MemoryId>,
    sink: Option<MemoryId>,
    bytes: Vec<u8>,
    leaving: Leaving,
    /// A command that has to wait for a grant to end.
    stalled: Option<(u64, u64)>,
    /// Announced, not yet granted: place and length.
    announced: VecDeque<(u64, u64)>,
    /// Granted before they were announced here. `None`: refused.
    early: VecDeque<(Option<Grant>, u64)>,
    sending: Vec<(TransferId, u64)>,
    receiving: Vec<RegionId>,
    news: VecDeque<News>,
    /// The program is gone; what it left still leaves.
    deaf: bool,
    over: bool,
}

impl Bridge {
    pub(crate) fn new(half: LoopHalf, source: Option<MemoryId>, sink: Option<MemoryId>) -> Self {
        Self {
            half,
            source,
            sink,
            bytes: Vec::with_capacity(64 << 10),
            leaving: Leaving::Nothing,
            stalled: None,
            announced: VecDeque::with_capacity(BULKS_MAX),
            early: VecDeque::with_capacity(BULKS_MAX),
            sending: Vec::with_capacity(BULKS_MAX),
            receiving: Vec::with_capacity(BULKS_MAX),
            news: VecDeque::with_capacity(2 * BULKS_MAX + 1),
            deaf: false,
            over: false,
        }
    }

    pub(crate) fn half(&mut self) -> &mut LoopHalf {
        &mut self.half
    }

    pub(crate) fn memories(&self) -> [Option<MemoryId>; 2] {
        [self.source, self.sink]
    }

    pub(crate) fn set_memories(&mut self, source: MemoryId, sink: MemoryId) {
        (self.source, self.sink) = (Some(source), Some(sink));
    }

    /// The program left, and all that it said is with the peer, or the connection is over.
    pub(crate) fn is_done(&self, connection: &Connection) -> bool {
        let status = connection.status();
        let said = status.messages == 0 && status.transfers == 0;
        let quiet = matches!(self.leaving, Leaving::Nothing) && self.announced.is_empty();
        self.deaf && (self.over || status.ended.is_some() || said && quiet)
    }

    /// The program is gone, as far as can be seen without its word.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether the program's next word would be taken. Else it waits for the peer, or for ever, and
    /// is no reason to stay awake.
    pub(crate) fn listens(&self) -> bool {
        let waits = !matches!(self.leaving, Leaving::Nothing) || self.stalled.is_some();
        !(waits || self.over || self.deaf || self.is_full())
    }

    /// As much as may be is under way.
    fn is_full(&self) -> bool {
        self.announced.len() + self.sending.len() >= BULKS_MAX
            || self.receiving.len() >= BULKS_MAX
            || self.news.len() >= BULKS_MAX
    }

    /// Takes what the program said. True if it said something.
    pub(crate) fn pull(
        &mut self,
        connection: &mut Connection,
        memory: &mut Memory,
    ) -> Result<bool, BridgeError> {
        let mut busy = false;
        for _ in 0..COMMANDS_A_TURN {
            if !self.say(connection) || !self.retry(connection, memory) || self.is_full() {
                break;
            }
            let command = match self.half.try_next() {
                Ok(Some(command)) => command,
                Ok(None) => break,
                Err(ChannelError::Closed) => {
                    self.deaf = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            busy = true;
            match command {
                FromApp::Stream(bytes) => {
                    self.bytes.clear();
                    self.bytes.extend_from_slice(bytes);
                    self.leaving = Leaving::Stream(0);
                }
                FromApp::Send { place, len } => self.announce(place, len, connection, memory)?,
                FromApp::Receive { place, len } => self.receive(place, len, connection, memory),
                FromApp::Refuse { len } => self.put_whole(&encode(REFUSE, [0, 0, len])),
                FromApp::Finish => self.put_whole(&[FINISH]),
            }
        }
        self.say(connection);
        Ok(busy)
    }

    /// Makes messages of what waits. False when the connection takes no more now.
    fn say(&mut self, connection: &mut Connection) -> bool {
        loop {
            let mut message;
            let (message, next) = match self.leaving {
                Leaving::Nothing => return true,
                Leaving::Whole => (self.bytes.as_slice(), None),
                Leaving::Stream(at) => {
                    let rest = &self.bytes[at..];
                    message = [0; MESSAGE_BYTES_MAX];
                    let taken = rest.len().min(STREAM_MAX);
                    message[0] = STREAM;
                    message[1..=taken].copy_from_slice(&rest[..taken]);
                    (&message[..=taken], Some(at + taken))
                }
            };
            match connection.send_message(message) {
                Ok(()) => {}
                Err(MessageError::Full) => return false,
                // The connection ended: its event tells the program. Nothing is ever too long.
                Err(_) => {
                    self.leaving = Leaving::Nothing;
                    return true;
                }
            }
            self.leaving = match next {
                Some(at) if at < self.bytes.len() => Leaving::Stream(at),
                _ => Leaving::Nothing,
            };
        }
    }

    fn put_whole(&mut self, message: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(message);
        self.leaving = Leaving::Whole;
    }

    fn announce(
        &mut self,
        place: u64,
        len: u64,
        connection: &mut Connection,
        memory: &mut Memory,
    ) -> Result<(), BridgeError> {
        let inside = self.source.is_some_and(|id| memory.holds(id, place, len));
        if !inside || len == 0 {
            // The peer waits for bulk that will never come: nothing after it can be understood.
            let text = format!("{len} bytes at {place} are not in the memory that is shared");
            self.news
                .push_back(News::Failed(place, failed::INVALID, text));
            return Err(BridgeError::App(ChannelError::Corrupt(
                "bulk from outside of the shared memory",
            )));
        }
        self.announced.push_back((place, len));
        self.match_grants(connection)
    }

    /// Sends what is both announced and granted.
    fn match_grants(&mut self, connection: &mut Connection) -> Result<(), BridgeError> {
        while let (Some(&(place, len)), Some(&(grant, granted))) =
            (self.announced.front(), self.early.front())
        {
            if granted != len {
                return Err(BridgeError::Peer("a grant of another length"));
            }
            let (Some(grant), Some(source)) = (grant, self.source) else {
                self.announced.pop_front();
                self.early.pop_front();
                self.news.push_back(News::Sent(place));
                continue;
            };
            let transfer = Transfer {
                grant,
                offset: 0,
                source: source.source(),
                source_offset: place,
                len,
                priority: if len <= SOON_MAX {
                    Priority::High
                } else {
                    Priority::Normal
                },
            };
            match connection.send(transfer) {
                Ok(id) => self.sending.push((id, place)),
                Err(SendError::Full) => return Ok(()),
                Err(error) => {
                    let news = News::Failed(place, failed::TRANSFER, error.to_string());
                    self.news.push_back(news);
                }
            }
            self.announced.pop_front();
            self.early.pop_front();
        }
        Ok(())
    }

    fn retry(&mut self, connection: &mut Connection, memory: &mut Memory) -> bool {
        if let Some((place, len)) = self.stalled.take() {
            self.receive(place, len, connection, memory);
        }
        self.stalled.is_none() && matches!(self.leaving, Leaving::Nothing)
    }

    fn receive(&mut self, place: u64, len: u64, connection: &mut Connection, memory: &mut Memory) {
        let region = self.sink.and_then(|sink| memory.name(sink, place, len));
        let Some(region) = region else {
            let text = format!("{len} bytes at {place} are not in the memory that is shared");
            self.news
                .push_back(News::Failed(place, failed::INVALID, text));
            self.put_whole(&encode(REFUSE, [0, 0, len]));
            return;
        };
        match connection.grant(region, len) {
            Ok(grant) => {
                self.receiving.push(region);
                self.put_whole(&encode(GRANT, [grant.region.0, grant.generation, len]));
            }
            Err(GrantError::Full) => {
                memory.forget(region);
                self.stalled = Some((place, len));
            }
            Err(error) => {
                memory.forget(region);
                let news = News::Failed(place, failed::TRANSFER, error.to_string());
                self.news.push_back(news);
            }
        }
    }

    /// Gives the program what came. True if something did.
    pub(crate) fn push(&mut self, connection: &mut Connection) -> Result<bool, BridgeError> {
        let mut busy = false;
        if !self.tell()? {
            return Ok(false);
        }
        while self.deaf || self.half.has_room(MESSAGE_BYTES_MAX) {
            let Self {
                half, early, deaf, ..
            } = self;
            let taken = connection.read_message(|message| match message.split_first() {
                Some((&STREAM, bytes)) => {
                    if *deaf || bytes.is_empty() {
                        return Ok(Taken::Done);
                    }
                    match half.try_tell(ToApp::Stream(bytes)) {
                        Ok(true) => Ok(Taken::Done),
                        Ok(false) => Err(BridgeError::Peer("a message found no room")),
                        Err(ChannelError::Closed) => Ok(Taken::Deaf),
                        Err(error) => Err(error.into()),
                    }
                }
                Some((&kind @ (GRANT | REFUSE), _)) => {
                    let Some([region, generation, len]) = decode(message) else {
                        return Err(BridgeError::Peer("a grant that is cut short"));
                    };
                    if early.len() >= BULKS_MAX {
                        return Err(BridgeError::Peer("more grants than bulk"));
                    }
                    let grant = Grant {
                        region: RegionId(region),
                        generation,
                    };
                    early.push_back(((kind == GRANT).then_some(grant), len));
                    Ok(Taken::Granted)
                }
                Some((&FINISH, [])) => Ok(Taken::Finished),
                _ => Err(BridgeError::Peer("a message of no kind that is known")),
            });
            let Some(taken) = taken else { break };
            busy = true;
            match taken? {
                Taken::Done => {}
                Taken::Deaf => self.deaf = true,
                Taken::Granted => self.match_grants(connection)?,
                Taken::Finished => {
                    let text = "the peer has finished".to_owned();
                    self.news.push_back(News::Ended(ended::FINISHED, text));
                    self.tell()?;
                }
            }
        }
        Ok(busy)
    }

    /// Tells the program what happened. False while there is no room for all of it.
    fn tell(&mut self) -> Result<bool, BridgeError> {
        while let Some(news) = self.news.front() {
            if self.deaf {
                self.news.clear();
                break;
            }
            let told = self.half.try_tell(match news {
                News::Sent(place) => ToApp::Sent { place: *place },
                News::Received(place) => ToApp::Received { place: *place },
                News::Failed(place, code, text) => ToApp::BulkFailed {
                    place: *place,
                    code: *code,
                    text,
                },
                News::Ended(code, text) => ToApp::Ended { code: *code, text },
            });
            match told {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(ChannelError::Closed) => {
                    self.deaf = true;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.news.pop_front();
        }
        Ok(true)
    }

    /// Something happened to the connection.
    pub(crate) fn on_event(
        &mut self,
        event: Event,
        connection: &mut Connection,
        memory: &mut Memory,
    ) -> Result<(), BridgeError> {
        match event {
            Event::Sent(id) => {
                if let Some(place) = self.sent(id) {
                    self.news.push_back(News::Sent(place));
                }
                self.match_grants(connection)?;
            }
            Event::SendFailed(id, error) => {
                if let Some(place) = self.sent(id) {
                    let news = News::Failed(place, failed::TRANSFER, error.to_string());
                    self.news.push_back(news);
                }
            }
            Event::Received(grant) => {
                if let Some(place) = self.received(grant, memory) {
                    self.news.push_back(News::Received(place));
                }
            }
            Event::ReceiveFailed(grant, error) => {
                if let Some(place) = self.received(grant, memory) {
                    let news = News::Failed(place, failed::TRANSFER, error.to_string());
                    self.news.push_back(news);
                }
            }
            Event::Ended(error) => self.end(ended::LOST, error.to_string()),
        }
        self.tell().map(drop)
    }

    /// The connection is over; the program is told once.
    pub(crate) fn end(&mut self, code: u8, text: String) {
        if !self.over {
            self.over = true;
            self.news.push_back(News::Ended(code, text));
            // A damaged or full channel: the program finds its half closed.
            let _ = self.tell();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes back all that was granted.
    pub(crate) fn forget_regions(&mut self, memory: &mut Memory) {
        for region in self.receiving.drain(..) {
            memory.forget(region);
        }
    }

    fn sent(&mut self, id: TransferId) -> Option<u64> {
        let at = self.sending.iter().position(|(sent, _)| *sent == id)?;
        Some(self.sending.swap_remove(at).1)
    }

    fn received(&mut self, grant: Grant, memory: &mut Memory) -> Option<u64> {
        let at = self
            .receiving
            .iter()
            .position(|region| *region == grant.region)?;
        self.receiving.swap_remove(at);
        memory.forget(grant.region).map(|(place, _)| place)
    }
}

enum Taken {
    Done,
    Deaf,
    Granted,
    Finished,
}

fn encode(kind: u8, numbers: [u64; 3]) -> [u8; GRANT_BYTES] {
    let mut bytes = [kind; GRANT_BYTES];
    for (at, number) in numbers.iter().enumerate() {
        bytes[1 + at * 8..9 + at * 8].copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

fn decode(message: &[u8]) -> Option<[u64; 3]> {
    let bytes: &[u8; GRANT_BYTES] = message.try_into().ok()?;
    let mut numbers = [0; 3];
    for (number, raw) in numbers.iter_mut().zip(bytes[1..].chunks_exact(8)) {
        *number = u64::from_be_bytes(raw.try_into().ok()?);
    }
    Some(numbers)
}
