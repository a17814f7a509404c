//! The door: which connections are served, and which give way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_controlplane::identity::Peer;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pace::{Bucket, Pace};
use crate::seats::{Bounds, Full, SeatId, Seats};

/// TLS handshakes of one address: each costs a signature.
const HANDSHAKES: Pace = Pace {
    per_second: 64.0,
    burst: 256.0,
};
/// Addresses whose handshakes are counted. Those that rest are forgotten first.
const PEERS_MAX: usize = 4096;

/// What a door lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorConfig {
    /// Connections at a time.
    pub bounds: Bounds,
    /// How long one may take to say what it is.
    pub handshake: Duration,
}

/// A door.
pub struct Door {
    seats: Mutex<Seats<Arc<Notify>>>,
    handshake: Mutex<Duration>,
    handshakes: Mutex<HashMap<Peer, Bucket>>,
}

impl Door {
    /// With nobody inside.
    #[must_use]
    pub fn new(config: DoorConfig) -> Self {
        Self {
            seats: Mutex::new(Seats::new(config.bounds)),
            handshake: Mutex::new(config.handshake),
            handshakes: Mutex::new(HashMap::new()),
        }
    }

    /// Other bounds, for who comes from now on.
    pub fn configure(&self, config: DoorConfig) {
        self.seats.lock().set_bounds(config.bounds);
        *self.handshake.lock() = config.handshake;
    }

    /// How long a connection may take to say what it is.
    #[must_use]
    pub fn handshake(&self) -> Duration {
        *self.handshake.lock()
    }

    /// A newcomer's place. Somebody else may have to go for it.
    #[must_use]
    pub fn enter(self: &Arc<Self>, address: SocketAddr) -> Guest {
        let (peer, told) = (Peer::of(address.ip()), Arc::new(Notify::new()));
        let (id, goes) = self.seats.lock().enter(peer, Arc::clone(&told));
        send_away(goes);
        Guest {
            door: Arc::clone(self),
            deadline: Instant::now() + self.handshake(),
            id,
            peer,
            told,
        }
    }

    /// The system has no room for another connection.
    pub fn relieve(&self) {
        send_away(self.seats.lock().relieve());
    }
}

fn send_away(told: Option<Arc<Notify>>) {
    if let Some(told) = told {
        told.notify_one();
    }
}

/// A connection's place; free again when this is dropped.
pub struct Guest {
    door: Arc<Door>,
    id: SeatId,
    peer: Peer,
    told: Arc<Notify>,
    /// Until when it has to have said what it is.
    pub deadline: Instant,
}

impl Guest {
    /// Where it comes from.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Waits until it has to go.
    pub async fn gives_way(&self) {
        self.told.notified().await;
    }

    /// Waits for its turn to shake hands. False: it would wait in vain.
    pub async fn turn(&self) -> bool {
        let wait = {
            let (now, mut handshakes) = (Instant::now(), self.door.handshakes.lock());
            if handshakes.len() >= PEERS_MAX && !handshakes.contains_key(&self.peer) {
                handshakes.retain(|_, bucket| !bucket.is_full(HANDSHAKES, now));
                if handshakes.len() >= PEERS_MAX {
                    handshakes.clear();
                }
            }
            let bucket = handshakes.entry(self.peer);
            let bucket = bucket.or_insert_with(|| Bucket::new(HANDSHAKES, now));
            bucket.take(
                HANDSHAKES,
                now,
                self.deadline.saturating_duration_since(now),
            )
        };
        let Some(wait) = wait else { return false };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        true
    }

    /// It has shown who it is.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn admit(&self) -> Result<(), Full> {
        let goes = self.door.seats.lock().admit(self.id, Instant::now())?;
        send_away(goes);
        Ok(())
    }

    /// It asks for something.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> Asking {
        self.door.seats.lock().begin(self.id, Instant::now());
        Asking {
            guest: Arc::clone(self),
            keeps: false,
        }
    }

    /// How long it has asked for nothing, unless it has a session.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        self.door.seats.lock().idle(self.id, Instant::now())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.seats.lock().leave(self.id);
    }
}

/// A request that is being answered.
pub struct Asking {
    guest: Arc<Guest>,
    keeps: bool,
}

impl Asking {
    /// The answer is a session.
    pub fn keeps(&mut self) {
        self.keeps = true;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let now = Instant::now();
        self.guest
            .door
            .seats
            .lock()
            .done(self.guest.id, now, self.keeps);
    }
}
