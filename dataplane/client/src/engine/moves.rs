//! Values from one device of a session to another.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use genie_control_api::v1::{EndWayRequest, OfferWayRequest, OpenWayRequest};
use genie_session::client::{Appended, Draft};
use genie_session::record;
use genie_session::transfer::Transfer;
use parking_lot::Mutex;

use super::append::SiteId;
use super::{Append, Error, Lane, Origin, Session};

/// How long two nodes may take to find each other.
const DIALLING: Duration = Duration::from_secs(5);

/// What is no longer than this is never behind what is.
const SMALL_BYTES: u64 = 1 << 20;

/// How values get from one device to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By their nodes.
    Direct,
    /// Through this process, since their nodes can't reach each other.
    Relayed,
}

/// What went from one device to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Values.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What carries them: "memory" within a node, "dpdk", "tcp", or "relayed" through this process.
    pub way: &'static str,
}

/// By the indices of the two devices.
#[derive(Default)]
pub(super) struct Ways {
    /// Held while two nodes find each other.
    ways: Mutex<HashMap<(usize, usize), Way>>,
    moved: Mutex<BTreeMap<(usize, usize), Moved>>,
}

impl Ways {
    /// Values go by this.
    fn carried(&self, from: &Lane, to: &Lane, way: &'static str) {
        let mut all = self.moved.lock();
        all.entry((from.index, to.index)).or_default().way = way;
    }

    /// A value of `bytes` goes.
    pub(super) fn moved(&self, from: &Lane, to: &Lane, bytes: u64) {
        let mut all = self.moved.lock();
        let moved = all.entry((from.index, to.index)).or_default();
        moved.values += 1;
        moved.bytes += bytes;
    }
}

impl Session {
    /// Moves the elements of a view to device `to`: gives a storage there that holds them, contiguous
    /// in row-major order. `draft` is a fetch's skeleton, storage and params; `bytes` is what they are.
    ///
    /// # Errors
    /// A node is lost; interrupted. Where the value is relayed, its fault.
    pub fn move_to(
        &self,
        from: &Lane,
        draft: &Draft<'_>,
        to: &Lane,
        bytes: u64,
        site: SiteId,
    ) -> Result<u64, Error> {
        from.check()?;
        to.check()?;
        let way = self.way(from, to);
        // That may have taken a while.
        from.check()?;
        to.check()?;
        match way {
            Way::Direct => self.send_to(from, draft, to, bytes, site),
            Way::Relayed => self.relay(from, draft, to, bytes, site),
        }
    }

    /// The way from one device to another, if it was found before; never waits.
    pub(super) fn known_way(&self, from: &Lane, to: &Lane) -> Option<Way> {
        let ways = self.ways.ways.try_lock()?;
        ways.get(&(from.index, to.index)).copied()
    }

    /// What went from device to device so far.
    #[must_use]
    pub fn moved(&self) -> BTreeMap<(usize, usize), Moved> {
        self.ways.moved.lock().clone()
    }

    pub(super) fn way(&self, from: &Lane, to: &Lane) -> Way {
        let mut warning = None;
        let way = *(self.ways.ways.lock())
            .entry((from.index, to.index))
            .or_insert_with(|| match self.connect(from, to) {
                Ok(carrier) => {
                    self.ways.carried(from, to, carrier);
                    Way::Direct
                }
                Err(why) => {
                    self.ways.carried(from, to, "relayed");
                    warning = Some(why);
                    Way::Relayed
                }
            });
        // With nothing in hand: a warning may run code of the program. A node that is lost is no news.
        if let Some(why) = warning.filter(|_| !from.is_lost() && !to.is_lost()) {
            self.host.warn(&format!(
                "values from {} to {} go through this process, since the one can't reach the \
                 other: {why}",
                from.node, to.node
            ));
        }
        way
    }

    /// A device is lost: what others wait for from it fails there, though its node may only be silent.
    /// False: not all could be told, now.
    pub(super) fn tell_of_lost(&self, lost: &Lane) -> bool {
        let from = lost.index as u32;
        let others = self.lanes.iter().filter(|lane| !lane.is_lost());
        let tell = |lane: &Lane| {
            lane.control.end_way(EndWayRequest {
                session_id: lane.opened.session_id,
                data_token: lane.opened.data_token.clone(),
                from,
            })
        };
        // Each of them, whatever became of the others.
        others.map(tell).filter(|told| !told).count() == 0
    }

    /// Has the two nodes find each other; what carries values from the one to the other.
    fn connect(&self, from: &Lane, to: &Lane) -> Result<&'static str, String> {
        let address = to.node.strip_prefix("tcp://");
        let address = address.ok_or("it is behind a gateway")?;
        let (log, other) = (from.index as u32, to.index as u32);
        let offer = OfferWayRequest {
            session_id: to.opened.session_id,
            data_token: to.opened.data_token.clone(),
            log: other,
            from: log,
        };
        let offered = to.control.offer_way(offer, DIALLING);
        let offered = offered.map_err(|error| error.to_string())?;
        let open = OpenWayRequest {
            session_id: from.opened.session_id,
            data_token: from.opened.data_token.clone(),
            log,
            to: other,
            token: offered.token,
            address: address.to_owned(),
            transport: offered.transport,
        };
        let opened = from.control.open_way(open, DIALLING);
        let way = opened.map_err(|error| error.to_string())?.way;
        let mut known = ["memory", "dpdk", "tcp"].into_iter();
        Ok(known.find(|name| *name == way).unwrap_or("unknown"))
    }

    /// Both ends are recorded next to each other, after room was found for both, so that neither log
    /// ever waits for what the other has not been told.
    fn send_to(
        &self,
        from: &Lane,
        draft: &Draft<'_>,
        to: &Lane,
        bytes: u64,
        site: SiteId,
    ) -> Result<u64, Error> {
        let (sent, received) = self.appending(&[from, to], 0, |append| {
            self.append_transfer(append, from, draft, to, (bytes, false), site)
        })?;
        self.sent_later(from, &sent)?;
        self.sent_later(to, &received)?;
        Ok(received.first_fresh)
    }

    /// Appends both ends of a transfer of so many bytes, for which there is room in both logs. One that is
    /// urgent, or small, goes ahead of those that are neither.
    pub(super) fn append_transfer(
        &self,
        append: &mut Append,
        from: &Lane,
        draft: &Draft<'_>,
        to: &Lane,
        (bytes, is_urgent): (u64, bool),
        site: SiteId,
    ) -> Result<(Appended, Appended), Error> {
        let transfer = Transfer::new(from.index, to.index, append.next_transfer);
        let transfer = transfer.ok_or_else(|| Error::Runtime("too many transfers".to_owned()))?;
        let transfer = match is_urgent || bytes <= SMALL_BYTES {
            true => transfer.urgent(),
            false => transfer,
        };
        append.next_transfer += 1;
        let name = [transfer.0 as i64];
        let send = Draft {
            kind: record::Kind::Send,
            tail_numbers: &name,
            ..*draft
        };
        let recv = Draft {
            tail_numbers: &[bytes as i64, name[0]],
            fresh: 1,
            ..Draft::new(record::Kind::Recv)
        };
        let sent = self.append_noted(from, append, &send, "", Origin::NONE, site)?;
        let received = self.append_noted(to, append, &recv, "", Origin::NONE, site)?;
        self.counters.moved(bytes);
        self.ways.moved(from, to, bytes);
        Ok((sent, received))
    }

    /// Through this process: the value's id at `to`.
    pub(super) fn relay(
        &self,
        from: &Lane,
        draft: &Draft<'_>,
        to: &Lane,
        bytes: u64,
        site: SiteId,
    ) -> Result<u64, Error> {
        let len = usize::try_from(bytes).map_err(|error| Error::Value(error.to_string()))?;
        let mut copy = vec![0; len];
        let fetch = Draft {
            kind: record::Kind::Fetch,
            ..*draft
        };
        self.fetch(from, &fetch, &mut copy, site)?;
        let size = [bytes as i64];
        let made = self.record(to, &Draft::alloc(&size), "", Origin::NONE, site)?;
        self.counters.relayed(bytes);
        self.ways.moved(from, to, bytes);
        // SAFETY: the copy outlives the call.
        unsafe { self.upload(to, made.first_fresh, copy.as_ptr(), len, site) }?;
        Ok(made.first_fresh)
    }
}
