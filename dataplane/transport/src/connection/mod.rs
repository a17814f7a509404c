//! One connection: id, peer, key, epoch, and everything that is under way on it.

mod acks;
mod config;
mod contents;
mod direct;
mod event;
mod frame;
mod plan;
mod receive;
mod status;
mod timers;
mod transmit;

use std::collections::VecDeque;

pub use config::{Config, ConfigError, Credit, PeerId};
pub use event::Event;
pub use status::{Counters, Status};

use crate::block::{Grant, RegionId, ResetBy};
use crate::congestion::{Controller, Delay};
use crate::content::Content;
use crate::drops::DropCounters;
use crate::error::{ConnectionError, GrantError, MessageError, SendError, TransferError};
use crate::grants::Grants;
use crate::header::Role;
use crate::limits::{
    CREDIT_INITIAL, DAMAGED_MAX, FRAME_DATA_MAX, GRANTS_MAX, MESSAGE_BYTES_MAX, MESSAGES_MAX,
    REPEATS_MAX, RESETS_MAX, RUNS_MAX, TRANSFERS_MAX,
};
use crate::messages::{MessagesIn, MessagesOut};
use crate::mtu::PathMtu;
use crate::outbox::{Outbox, Transfer, TransferId};
use crate::pacing::Bucket;
use crate::pending::Pending;
use crate::protect::Guard;
use crate::ranges::RangeSet;
use crate::rtt::Rtt;
use crate::sent::{Reordering, Sent};
use crate::time::Time;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A last frame is to say so.
    Closing,
    Ended(ConnectionError),
}

/// What happened since it last had nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touched {
    No,
    /// Something.
    Yes,
    /// Nothing but a frame that left at that time: what is due then was done.
    Sent(Time),
}

/// A connection as a state machine; see the crate's documentation.
pub struct Connection {
    config: Config,
    state: State,
    seal: Guard,
    open: Guard,

    sent: Sent,
    rtt: Rtt,
    reordering: Reordering,
    control: Box<dyn Controller>,
    /// The first packet number of the next round trip.
    round_end: u64,
    pacer: Bucket,
    limiter: Bucket,
    mtu: PathMtu,
    outbox: Outbox,
    messages_out: MessagesOut,
    /// Data to be sent again; apart from the rest, since only data needs credit.
    repeats: VecDeque<Content>,
    /// Messages and resets to be sent (again).
    urgent: VecDeque<Content>,
    peer_credit: u64,
    /// The number of the packet that told of it; an older one does not overrule it.
    peer_credit_from: Option<u64>,
    ping: bool,
    /// Frames that may leave in spite of window and pace.
    probes: u32,
    probe_timeouts: u32,
    persists: u32,
    /// From when probe timeouts count.
    probe_base: Time,
    /// When the pacer lets the next frame out, if one waits.
    wake: Option<Time>,

    seen: RangeSet,
    /// Packet numbers below are too old to tell.
    seen_floor: u64,
    grants: Grants,
    pending: Pending,
    messages_in: MessagesIn,
    held: u64,
    unacked: u32,
    ack_at: Option<Time>,
    largest_at: Time,
    advertised_credit: u64,
    advertised_messages: u64,
    /// Packets that came damaged, to be told.
    damaged: VecDeque<u64>,

    touched: Touched,
    last_heard: Time,
    last_asked: Time,
    /// Since when something is unacknowledged without progress.
    waiting_since: Option<Time>,
    events: VecDeque<Event>,
    /// How it ended, until that is told.
    ending: Option<ConnectionError>,
    send_events: usize,
    receive_events: usize,
    counters: Counters,
    drops: DropCounters,
}

impl Connection {
    /// Opens a connection with the default congestion control.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: Config, now: Time) -> Result<Self, ConfigError> {
        Self::with_controller(config, Box::new(Delay::default()), now)
    }

    /// Opens a connection with a congestion control of one's own.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn with_controller(
        config: Config,
        control: Box<dyn Controller>,
        now: Time,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let peer_role = match config.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        Ok(Self {
            seal: Guard::new(&config.protection, config.epoch, config.role),
            open: Guard::new(&config.protection, config.epoch, peer_role),
            state: State::Open,
            sent: Sent::new(),
            rtt: Rtt::default(),
            reordering: Reordering::default(),
            control,
            round_end: 0,
            pacer: Bucket::new(now),
            limiter: Bucket::new(now),
            mtu: PathMtu::new(config.mtu, config.mtu_max),
            outbox: Outbox::new(),
            messages_out: MessagesOut::new(),
            repeats: VecDeque::with_capacity(REPEATS_MAX),
            urgent: VecDeque::with_capacity(RESETS_MAX + MESSAGES_MAX),
            peer_credit: CREDIT_INITIAL,
            peer_credit_from: None,
            ping: false,
            probes: 0,
            probe_timeouts: 0,
            persists: 0,
            probe_base: now,
            wake: None,
            seen: RangeSet::new(RUNS_MAX),
            seen_floor: 0,
            grants: Grants::new(),
            pending: Pending::new(config.epoch),
            messages_in: MessagesIn::new(),
            held: 0,
            unacked: 0,
            ack_at: None,
            largest_at: now,
            advertised_credit: CREDIT_INITIAL,
            advertised_messages: MESSAGES_MAX as u64,
            damaged: VecDeque::with_capacity(DAMAGED_MAX),
            touched: Touched::Yes,
            last_heard: now,
            last_asked: now,
            waiting_since: None,
            events: VecDeque::with_capacity(TRANSFERS_MAX + GRANTS_MAX + 1),
            ending: None,
            send_events: 0,
            receive_events: 0,
            counters: Counters::default(),
            drops: DropCounters::default(),
            config,
        })
    }

    /// Lets the peer fill `len` bytes of a region, once. The caller tells it so.
    ///
    /// # Errors
    /// [`GrantError`]
    pub fn grant(&mut self, region: RegionId, len: u64) -> Result<Grant, GrantError> {
        self.alive()?;
        if len == 0 {
            return Err(GrantError::Empty);
        }
        if self.grants.open_count() + self.receive_events >= GRANTS_MAX {
            return Err(GrantError::Full);
        }
        self.grants.open(region, len).ok_or(GrantError::Full)
    }

    /// Takes a grant back. Nothing is written to it from here on, save what a device is gathering
    /// now ([`Connection::handle_split`]): the event comes after that.
    pub fn revoke(&mut self, grant: Grant) {
        self.touched = Touched::Yes;
        self.fail_grant(grant, TransferError::Cancelled);
    }

    /// Sends a source to the peer's grant.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn send(&mut self, transfer: Transfer) -> Result<TransferId, SendError> {
        self.alive()?;
        if transfer.len == 0 {
            return Err(SendError::Empty);
        }
        let ends = [transfer.offset, transfer.source_offset].map(|at| at.checked_add(transfer.len));
        if ends.contains(&None) {
            return Err(SendError::TooLong);
        }
        if self.outbox.len() + self.send_events >= TRANSFERS_MAX {
            return Err(SendError::Full);
        }
        self.touched = Touched::Yes;
        self.outbox.push(transfer).ok_or(SendError::Full)
    }

    /// Takes a transfer back, and every other into the same grant: it can't become whole.
    pub fn cancel(&mut self, transfer: TransferId) {
        self.touched = Touched::Yes;
        self.fail_transfer(transfer, TransferError::Cancelled);
    }

    /// Sends a small message; it arrives once and in order.
    ///
    /// # Errors
    /// [`MessageError`]
    pub fn send_message(&mut self, bytes: &[u8]) -> Result<(), MessageError> {
        self.alive()?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong(bytes.len()));
        }
        self.touched = Touched::Yes;
        if self.messages_out.push(bytes) {
            Ok(())
        } else {
            Err(MessageError::Full)
        }
    }

    /// Lets the caller read the next message; `None` when there is none.
    pub fn read_message<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let read = self.messages_in.read(read);
        // There is room for another.
        if read.is_some() {
            self.touched = Touched::Yes;
        }
        read
    }

    /// The driver is done with bytes that were written ([`Credit::WhenReleased`]).
    pub fn release(&mut self, bytes: u64) {
        self.touched = Touched::Yes;
        self.held = self.held.saturating_sub(bytes);
    }

    /// Ends the connection; the peer is told once.
    pub fn close(&mut self) {
        self.touched = Touched::Yes;
        if self.state == State::Open {
            self.end(ConnectionError::Closed);
            self.state = State::Closing;
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match event {
            Event::Sent(_) | Event::SendFailed(..) => self.send_events -= 1,
            Event::Received(_) | Event::ReceiveFailed(..) => self.receive_events -= 1,
            Event::Ended(_) => {}
        }
        Some(event)
    }

    /// There is an event or a message for the program.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.events.is_empty() || self.messages_in.has_next()
    }

    /// How it was set up.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it did.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What it dropped.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Its time came.
    pub(crate) fn touch(&mut self) {
        self.touched = Touched::Yes;
    }

    /// There may be something to send.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched != Touched::No
    }

    /// It has nothing to send.
    pub(crate) fn rest(&mut self) {
        self.touched = Touched::No;
    }

    fn alive(&self) -> Result<(), ConnectionError> {
        match self.state {
            State::Open => Ok(()),
            State::Closing => Err(ConnectionError::Closed),
            State::Ended(error) => Err(error),
        }
    }

    /// Bytes that the peer may have in flight now.
    fn credit(&self) -> u64 {
        let taken = self.held + self.pending.bytes();
        self.config.credit.saturating_sub(taken)
    }

    /// The peer should hear of more room, though nothing new arrived.
    fn credit_news(&self) -> bool {
        let (credit, frame) = (self.credit(), FRAME_DATA_MAX as u64);
        let bytes = credit >= self.advertised_credit + self.config.credit / 4
            || (self.advertised_credit < frame && credit >= frame);
        let messages =
            self.messages_in.limit() >= self.advertised_messages + MESSAGES_MAX as u64 / 4;
        self.seen.len() > 0 && (bytes || messages)
    }

    fn push_event(&mut self, event: Event) {
        match event {
            Event::Sent(_) | Event::SendFailed(..) => self.send_events += 1,
            Event::Received(_) | Event::ReceiveFailed(..) => self.receive_events += 1,
            Event::Ended(_) => {}
        }
        self.events.push_back(event);
    }

    fn push_reset(&mut self, grant: Grant, by: ResetBy) {
        if self.urgent.len() < RESETS_MAX {
            self.urgent.push_back(Content::Reset { grant, by });
        }
    }

    fn fail_transfers_of(&mut self, grant: Grant, error: TransferError) {
        while let Some(id) = self.outbox.find(Some(grant)) {
            self.outbox.remove(id);
            self.push_event(Event::SendFailed(id, error));
        }
    }

    /// Fails a transfer with all that go into the same grant, which can't become whole any more.
    fn fail_transfer(&mut self, id: TransferId, error: TransferError) {
        if let Some(transfer) = self.outbox.transfer(id) {
            self.fail_transfers_of(transfer.grant, error);
            self.push_reset(transfer.grant, ResetBy::Sender);
        }
    }

    /// Ends everything that is under way.
    fn end(&mut self, error: ConnectionError) {
        while let Some(id) = self.outbox.find(None) {
            self.outbox.remove(id);
            self.push_event(Event::SendFailed(id, TransferError::Connection(error)));
        }
        while let Some(grant) = self.grants.any() {
            self.end_grant(grant, TransferError::Connection(error));
        }
        self.repeats.clear();
        self.urgent.clear();
        self.state = State::Ended(error);
        self.ending = Some(error);
        self.end_late();
    }
}
