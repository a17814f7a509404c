//! All connections of a driver: finds the one that a frame is for, and lets each send in turn.

use crate::connection::{Config, ConfigError, Connection, PeerId};
use crate::drops::{DropCounters, DropReason};
use crate::header::{ConnectionId, Epoch, Header};
use crate::limits::CONNECTIONS_MAX;
use crate::regions::Regions;
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
#[derive(Default)]
pub struct Endpoint {
    /// Sorted by id.
    connections: Vec<Connection>,
    turn: usize,
    drops: DropCounters,
}

impl Endpoint {
    /// An endpoint without connections.
    #[must_use]
    pub fn new() -> Self {
        let connections = Vec::with_capacity(CONNECTIONS_MAX);
        Self {
            connections,
            turn: 0,
            drops: DropCounters::default(),
        }
    }

    /// Opens a connection, or makes one anew in a newer epoch: what the old one had under way is
    /// gone, without events, and its frames are stale.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(&mut self, config: Config, now: Time) -> Result<&mut Connection, OpenError> {
        let (id, epoch) = (config.id, config.epoch);
        let at = match self.find(id) {
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
                at
            }
        };
        Ok(&mut self.connections[at])
    }

    /// Forgets a connection.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.find(id).ok().map(|at| self.connections.remove(at))
    }

    /// A connection by its name.
    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let at = self.find(id).ok()?;
        self.connections.get_mut(at)
    }

    /// All connections.
    pub fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.iter_mut()
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
        let found = Header::parse(frame).and_then(|header| {
            let at = self
                .find(header.connection)
                .map_err(|_| DropReason::UnknownConnection)?;
            Ok((at, header.connection))
        });
        let (at, id) = found.inspect_err(|reason| self.drops.count(*reason))?;
        self.connections[at].handle(frame, now, regions)?;
        Ok(id)
    }

    /// Writes the next frame to the front of `out`, each connection in its turn.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        regions: &mut impl Regions,
        out: &mut [u8],
    ) -> Option<Transmit> {
        for _ in 0..self.connections.len() {
            self.turn = (self.turn + 1) % self.connections.len();
            let connection = &mut self.connections[self.turn];
            if let Some(len) = connection.poll_transmit(now, regions, out) {
                let (connection, peer) = (connection.config().id, connection.config().peer);
                return Some(Transmit {
                    connection,
                    peer,
                    len,
                });
            }
        }
        None
    }

    /// When to call [`Endpoint::poll_transmit`] again though nothing arrives.
    #[must_use]
    pub fn timeout(&self) -> Option<Time> {
        self.connections
            .iter()
            .filter_map(Connection::timeout)
            .min()
    }

    /// Frames that were dropped before they had a connection.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn find(&self, id: ConnectionId) -> Result<usize, usize> {
        self.connections
            .binary_search_by_key(&id, |connection| connection.config().id)
    }
}
