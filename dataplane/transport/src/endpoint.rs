//! All connections of a driver: finds the one that a frame is for, and lets each send in turn.

use crate::connection::{Config, ConfigError, Connection, PeerId};
use crate::drops::{DropCounters, DropReason};
use crate::header::{ConnectionId, Epoch, Header};
use crate::limits::CONNECTIONS_MAX;
use crate::payload::{DeviceData, Unverified};
use crate::regions::Regions;
use crate::split::SplitTransmit;
use crate::time::Time;

/// A frame to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// On which connection.
    pub connection: ConnectionId,
    /// To whom.
    pub peer: PeerId,
    /// Bytes in the buffer.
    pub len: usize,
}

/// Why a connection was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Close one first.
    #[error("{CONNECTIONS_MAX} connections are open")]
    Full,
    /// A name may be used again only in a newer epoch.
    #[error("connection {id:?} is in epoch {current:?}; a new one must be greater")]
    OldEpoch {
        /// Of which connection.
        id: ConnectionId,
        /// Its epoch.
        current: Epoch,
    },
    /// Not a sound configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The connections of one driver.
pub struct Endpoint {
    /// Sorted by id.
    connections: Vec<Connection>,
    /// Their ids, close together.
    ids: Vec<ConnectionId>,
    /// Bit `at`: something happened to connection `at` since it last had nothing to send.
    ready: u64,
    /// Bit `at`: connection `at` may have an event or a message for the program.
    news: u64,
    /// When each has something to do by itself, as of then; `Time::NEVER` if never.
    deadlines: [Time; CONNECTIONS_MAX],
    /// The least of them.
    earliest: Time,
    turn: usize,
    drops: DropCounters,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(CONNECTIONS_MAX <= 64, "one bit each");

impl Endpoint {
    /// An endpoint without connections.
    #[must_use]
    pub fn new() -> Self {
        Self {
            connections: Vec::with_capacity(CONNECTIONS_MAX),
            ids: Vec::with_capacity(CONNECTIONS_MAX),
            ready: 0,
            news: 0,
            deadlines: [Time::NEVER; CONNECTIONS_MAX],
            earliest: Time::NEVER,
            turn: 0,
            drops: DropCounters::default(),
        }
    }

    /// Opens a connection, or makes one anew in a newer epoch: what the old one had under way is
    /// gone, without events, and its frames are stale. What a device is still gathering for it the
    /// driver must wait for itself, as before [`Endpoint::remove`].
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(&mut self, config: Config, now: Time) -> Result<&mut Connection, OpenError> {
        let (id, epoch) = (config.id, config.epoch);
        let at = match self.ids.binary_search(&id) {
            Ok(at) => {
                let current = self.connections[at].config().epoch;
                if epoch <= current {
                    return Err(OpenError::OldEpoch { id, current });
                }
                self.connections[at] = Connection::new(config, now)?;
                at
            }
            Err(_) if self.connections.len() == CONNECTIONS_MAX => return Err(OpenError::Full),
            Err(at) => {
                self.connections.insert(at, Connection::new(config, now)?);
                self.ids.insert(at, id);
                at
            }
        };
        self.forget_deadlines();
        Ok(&mut self.connections[at])
    }

    /// Forgets a connection.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let at = self.ids.binary_search(&id).ok()?;
        self.ids.remove(at);
        let removed = self.connections.remove(at);
        self.forget_deadlines();
        Some(removed)
    }

    /// A connection by its name.
    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let at = self.ids.binary_search(&id).ok()?;
        self.touch(at);
        self.connections.get_mut(at)
    }

    /// All connections.
    pub fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.all_ready();
        self.connections.iter_mut()
    }

    /// Ends connections whose peers were silent for too long. [`Self::poll_transmit`] looks, too, but
    /// a driver whose link takes nothing does not call it.
    pub fn look_after_peers(&mut self, now: Time) {
        for at in 0..self.connections.len() {
            if self.connections[at].look_after_peer(now) {
                self.touch(at);
            }
        }
    }

    /// Takes a frame, which is opened in place, and names its connection.
    ///
    /// # Errors
    /// Why it was dropped; it was counted, by its connection if it has one.
    pub fn handle(
        &mut self,
        frame: &mut [u8],
        now: Time,
        regions: &mut impl Regions,
    ) -> Result<ConnectionId, DropReason> {
        let at = self.find_for(frame)?;
        self.touch(at);
        let connection = &mut self.connections[at];
        connection.handle(frame, now, regions)?;
        Ok(self.ids[at])
    }

    /// Takes a frame whose data lie apart from its head, in device memory; see
    /// [`Connection::handle_split`].
    ///
    /// # Errors
    /// Why it was dropped; it was counted, by its connection if it has one.
    pub fn handle_split(
        &mut self,
        head: &mut [u8],
        data: DeviceData,
        now: Time,
        regions: &mut impl Regions,
    ) -> Result<(ConnectionId, Option<Unverified>), DropReason> {
        let at = self.find_for(head)?;
        self.touch(at);
        let connection = &mut self.connections[at];
        let unverified = connection.handle_split(head, data, now, regions)?;
        Ok((self.ids[at], unverified))
    }

    /// Writes the next frame to the front of `out`, each connection in its turn.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        regions: &mut impl Regions,
        out: &mut [u8],
    ) -> Option<Transmit> {
        self.each_in_turn(now, |connection| {
            let len = connection.poll_transmit(now, regions, out)?;
            let (connection, peer) = (connection.config().id, connection.config().peer);
            Some(Transmit {
                connection,
                peer,
                len,
            })
        })
    }

    /// Writes the head of the next frame to `head` and names its data, each connection in its turn;
    /// see [`Connection::poll_transmit_split`].
    pub fn poll_transmit_split(
        &mut self,
        now: Time,
        regions: &mut impl Regions,
        head: &mut [u8],
    ) -> Option<SplitTransmit> {
        self.each_in_turn(now, |connection| {
            connection.poll_transmit_split(now, regions, head)
        })
    }

    /// A connection that has an event or a message for the program, which is to take all before it
    /// asks again. Idle ones are not looked at.
    pub fn poll_news(&mut self) -> Option<&mut Connection> {
        while self.news != 0 {
            let at = self.news.trailing_zeros() as usize;
            if self.connections[at].has_news() {
                self.touch(at);
                return self.connections.get_mut(at);
            }
            self.news &= !(1 << at);
        }
        None
    }

    /// When to call [`Endpoint::poll_transmit`] again though nothing arrives.
    #[must_use]
    pub fn timeout(&self) -> Option<Time> {
        let mut earliest = self.earliest;
        let mut ready = self.ready;
        while ready != 0 {
            let at = ready.trailing_zeros() as usize;
            ready &= ready - 1;
            let connection = &self.connections[at];
            if connection.is_touched() {
                earliest = earliest.min(connection.timeout().unwrap_or(Time::NEVER));
            }
        }
        (earliest < Time::NEVER).then_some(earliest)
    }

    /// Frames that were dropped before they had a connection.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn find_for(&mut self, frame: &[u8]) -> Result<usize, DropReason> {
        let found = Header::parse(frame).and_then(|header| {
            self.ids
                .binary_search(&header.connection)
                .map_err(|_| DropReason::UnknownConnection)
        });
        found.inspect_err(|reason| self.drops.count(*reason))
    }

    /// Something happened to it, or may: the caller may give it something to do.
    fn touch(&mut self, at: usize) {
        self.ready |= 1 << at;
        self.news |= 1 << at;
    }

    fn all_ready(&mut self) {
        let count = self.connections.len() as u32;
        self.ready = u64::MAX.checked_shr(64 - count).unwrap_or(0);
        self.news = self.ready;
    }

    /// Places moved, or one is new: what was known of deadlines is not theirs.
    fn forget_deadlines(&mut self) {
        self.all_ready();
        self.deadlines = [Time::NEVER; CONNECTIONS_MAX];
        for (deadline, connection) in self.deadlines.iter_mut().zip(&self.connections) {
            *deadline = connection.timeout().unwrap_or(Time::NEVER);
        }
        self.find_earliest();
    }

    /// Asks those that may have something to send, from the one after the last that had. Idle ones
    /// are not looked at: they are ready again when they are touched, or when their time comes.
    fn each_in_turn<T>(
        &mut self,
        now: Time,
        mut ask: impl FnMut(&mut Connection) -> Option<T>,
    ) -> Option<T> {
        if self.earliest <= now {
            for (at, deadline) in self.deadlines.iter_mut().enumerate() {
                if *deadline <= now {
                    *deadline = Time::NEVER;
                    self.connections[at].touch();
                    self.ready |= 1 << at;
                }
            }
            self.find_earliest();
        }
        while self.ready != 0 {
            let after = self.turn as u32 + 1;
            // Those beyond the last in turn first; then from the beginning.
            let beyond = self.ready & u64::MAX.checked_shl(after).unwrap_or(0);
            let next = if beyond == 0 { self.ready } else { beyond };
            let at = next.trailing_zeros() as usize;
            self.turn = at;
            let connection = &mut self.connections[at];
            if !connection.is_touched() {
                // The program only looked.
                self.ready &= !(1 << at);
                continue;
            }
            self.news |= 1 << at;
            if let Some(answer) = ask(connection) {
                return Some(answer);
            }
            connection.rest();
            self.ready &= !(1 << at);
            let before = self.deadlines[at];
            self.deadlines[at] = connection.timeout().unwrap_or(Time::NEVER);
            if self.deadlines[at] <= self.earliest {
                self.earliest = self.deadlines[at];
            } else if before == self.earliest {
                self.find_earliest();
            }
        }
        None
    }

    fn find_earliest(&mut self) {
        self.earliest = self.deadlines.into_iter().min().unwrap_or(Time::NEVER);
    }
}
