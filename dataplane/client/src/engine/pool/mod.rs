//! Sessions whose program chooses no device: all devices are one index, and a router decides for each
//! operator where it runs, and brings there what it takes.
//!
//! A storage of such a program is a *value*, whose name is the session's own; `Places` knows which
//! devices hold copies of it, by which ids of their logs. A copy that an operator only reads stays
//! where it was brought (a replica); a write ends all other copies.

mod ahead;
mod at;
mod calls;
mod plans;
mod relay;
mod route;

use std::collections::HashMap;
use std::time::Instant;

use genie_planner::{Choice, Device, Input, Policy};
use genie_session::client::Draft;
use genie_session::outline::Outline;
use genie_session::places::{Copy, Doubt, Places, Set, Unproven, Value};
use genie_session::record;
use genie_session::segment::IdMap;
use genie_session::skeleton::tag;

use super::{Append, Error, Lane, Session};

pub use self::plans::Planned;
pub(super) use self::plans::{LOAD_EVERY, OBSERVED_EVERY};
pub(super) use self::relay::Wanted;

/// Where a program's tensors are, as far as the program knows.
#[derive(Clone, Copy)]
pub enum At<'s> {
    /// On a device that it chose.
    Lane(&'s Lane),
    /// On any of the session's.
    Pool,
}

/// What the router knows, under the append lock.
pub(super) struct Pool {
    places: Places,
    policy: Box<dyn Policy>,
    /// Of an operator that found no room: it goes there when it comes again.
    decided: Option<Choice>,
    /// What has to be done without the lock before a record can be appended.
    wanted: Vec<Wanted>,
    unproven: Unproven,
    /// The program's records before they are routed, and the plans for them.
    outline: Outline,
    planned: Planned,
    /// Operators that not every device has, and which have them.
    homes: HashMap<String, Set>,
    /// What values from before the segment were when it used them first: bytes, and who held them.
    used: IdMap<(u64, Set)>,
    /// When the segment began, and what moved since.
    began: Option<Instant>,
    moved_bytes: u64,
    /// The record at hand goes where a plan says: what it waits for goes ahead of what nobody waits for.
    is_planned: bool,
    /// Devices that records went to since the lock was taken.
    touched: Set,
    /// Reused from record to record.
    inputs: Vec<Input>,
    ids: Vec<u64>,
    devices: Vec<Device>,
}

impl Pool {
    pub(super) fn new(devices: usize, policy: Box<dyn Policy>) -> Self {
        Self {
            places: Places::new(devices),
            outline: Outline::new(),
            planned: Planned::default(),
            homes: HashMap::new(),
            used: IdMap::default(),
            policy,
            decided: None,
            wanted: Vec::new(),
            unproven: Unproven::default(),
            began: None,
            moved_bytes: 0,
            is_planned: false,
            touched: Set::EMPTY,
            inputs: Vec::new(),
            ids: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// Whether plans know the name of an operator.
    fn is_named(&self, op: u32) -> bool {
        !self.policy.wants_plans() || self.outline.is_defined(op)
    }

    /// The devices that have an operator, where that is not all.
    fn home(&self, name: impl FnOnce() -> &'static str) -> Option<Set> {
        if self.homes.is_empty() {
            return None;
        }
        self.homes.get(name()).copied()
    }

    fn name(&mut self, op: u32, name: &str) {
        if self.policy.wants_plans() && !name.is_empty() {
            self.outline.define_op(op, name);
        }
    }

    /// An operator has made values of so many bytes each, `first` and those after it, whose storages are
    /// `first_id` and those after it.
    fn made(&mut self, choice: Choice, (first, first_id): (u64, u64), bytes: &[u64]) {
        for (nth, &bytes) in (0..).zip(bytes) {
            self.places.insert(first + nth, bytes);
            (self.places).add(first + nth, choice.device, first_id + nth, choice.why);
        }
    }

    /// What it knew goes.
    pub(super) fn empty(&mut self) {
        self.places = Places::new(0);
        self.outline = Outline::new();
        self.used = IdMap::default();
        self.wanted = Vec::new();
        self.unproven = Unproven::default();
    }
}

/// A tensor of bytes: how a storage is looked at as a whole, whatever lies in it.
const BYTES: [u8; 4] = [tag::TENSOR, 0, 0, 1];

/// Sizes and strides of so many of them.
fn first_bytes(bytes: u64) -> [i64; 3] {
    [0, bytes as i64, 1]
}

/// Where a value is.
pub struct Found {
    /// Indices of the lanes that hold it; none before anything was done with it.
    pub lanes: Vec<usize>,
    /// What brought it to the first of them.
    pub why: &'static str,
}

impl Session {
    /// The policy that places its operators; `None` where the program does.
    #[must_use]
    pub fn policy(&self) -> Option<&'static str> {
        let append = self.append.lock();
        append.pool.as_ref().map(|pool| pool.policy.name())
    }

    /// An operator of a pool can run on these devices only.
    pub(super) fn live_on(&self, name: &str, devices: Set) {
        let append = &mut *self.append.lock();
        if let Some(pool) = append.pool.as_mut()
            && pool.homes.get(name) != Some(&devices)
        {
            pool.homes.insert(name.to_owned(), devices);
        }
    }

    /// Where the value `value` of a pool is.
    #[must_use]
    pub fn find(&self, value: u64) -> Option<Found> {
        let append = self.append.lock();
        let known = append.pool.as_ref()?.places.get(value)?;
        Some(Found {
            lanes: known.copies().map(|copy| copy.device).collect(),
            why: known.why(),
        })
    }

    /// Tells of each of some values of a pool which device holds it, `None` for nobody.
    pub fn places(&self, values: &[u64], mut tell: impl FnMut(usize, Option<usize>)) {
        let append = self.append.lock();
        let places = append.pool.as_ref().map(|pool| &pool.places);
        for (index, &value) in values.iter().enumerate() {
            let known = places.and_then(|places| places.get(value));
            let first = known.and_then(|known| known.copies().next());
            tell(index, first.map(|copy| copy.device));
        }
    }

    /// A look at everything recorded so far: its number. Nothing where the program places.
    pub(super) fn begin_look(&self) -> u64 {
        if !self.is_pool {
            return 0;
        }
        let mut append = self.append.lock();
        append.pool.as_mut().map_or(0, |pool| pool.unproven.look())
    }

    /// It found that all went well.
    pub(super) fn end_look(&self, look: u64) {
        if !self.is_pool {
            return;
        }
        let append = &mut *self.append.lock();
        if let Some(pool) = append.pool.as_mut() {
            let gone = pool.unproven.proven(look);
            self.drop_copies(append, gone);
        }
    }

    /// The program hears of a fault: what may not have arrived is asked for, and taken back where it
    /// did not.
    pub(super) fn take_back(&self) {
        if !self.is_pool {
            return;
        }
        let doubts = {
            let append = &mut *self.append.lock();
            let Some(pool) = append.pool.as_mut() else {
                return;
            };
            let (gone, doubts) = pool.unproven.failed(&mut pool.places);
            self.drop_copies(append, gone);
            doubts
        };
        for (at, &doubt) in doubts.iter().enumerate() {
            let arrived = self.has_arrived(doubt);
            let append = &mut *self.append.lock();
            let Some(pool) = append.pool.as_mut() else {
                return;
            };
            let Some(arrived) = arrived else {
                pool.unproven.put_back(doubts[at..].to_vec());
                return;
            };
            let gone = Unproven::settle(&mut pool.places, doubt, arrived);
            self.drop_copies(append, gone);
        }
    }

    /// Whether a value is where it was brought. `None`: interrupted.
    fn has_arrived(&self, doubt: Doubt) -> Option<bool> {
        let id = {
            let append = self.append.lock();
            let known = append.pool.as_ref()?.places.get(doubt.value);
            known.and_then(|known| known.at(doubt.device))
        };
        let Some(id) = id else {
            // It is gone, or elsewhere since.
            return Some(true);
        };
        let (lane, mut byte) = (&self.lanes[doubt.device], [0]);
        let view = Draft {
            skeleton: &BYTES,
            storages: &[id],
            params: &first_bytes(1),
            ..Draft::new(record::Kind::Fetch)
        };
        match self.ask_fetch(lane, &view, &mut byte) {
            Ok(arrived) => Some(arrived),
            Err(Error::Interrupted) => None,
            // It went with its device.
            Err(_) => Some(true),
        }
    }

    /// The oldest copy of a value on a device that is not lost.
    fn living(&self, value: &Value) -> Option<Copy> {
        let mut copies = value.copies();
        copies.find(|copy| !self.lanes[copy.device].is_lost())
    }

    /// Copies that are no longer wanted go.
    fn drop_copies(&self, append: &mut Append, copies: impl IntoIterator<Item = Copy>) {
        for copy in copies {
            let lane = &self.lanes[copy.device];
            if !lane.is_lost() {
                self.let_go(append, copy.device, copy.id);
                self.mark_dirty(lane);
            }
        }
    }
}
