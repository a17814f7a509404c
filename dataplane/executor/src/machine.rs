//! The hands of a session: storages by id, operators by number.

mod sending;

use std::ptr::NonNull;

use genie_gpudev::DeviceKind;
use genie_session::WireError;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind, NO_PLACE};
use genie_session::machine::{Call, Failure, Machine, Metas, Source, View};
use genie_session::segment::IdMap;
use genie_session::skeleton;
use genie_shm::RingError;

use self::sending::{Pin, To};
use crate::ffi::{self, Operator, RawStorage, Storage};
use crate::places::{Inbound, Outbound};
use crate::port::Port;
use crate::profile::Profile;
use crate::transfers::{Expected, GivenUp, Here, Transfers, other_bytes};
use crate::{memory, operators, slowed};

/// Storages that cost nothing beside their bytes, and what each further one costs: its books.
const STORAGES_FREE: usize = 1 << 16;
const STORAGE_BYTES: u64 = 512;
/// Operators that a session may define.
const OPERATORS_MAX: usize = 1 << 14;
/// What comes and is not wanted is told of where it is at least so much.
const CANCEL_BYTES: u64 = 1 << 20;
/// A storage, and what it counts on a device whose memory libtorch manages itself.
struct Held {
    storage: Storage,
    charged: u64,
}

/// The hands, on libtorch.
pub struct TorchMachine {
    /// Frames of replies leave while others are still being worked on.
    pub port: Port,
    inbound: Inbound,
    /// What comes from other devices of the session.
    transfers: Transfers,
    /// What is being sent from where it lies.
    pins: Vec<Pin>,
    on_host: bool,
    /// Of 100; less, and each operator takes so much longer.
    speed_percent: u32,
    operators: IdMap<(String, Operator)>,
    storages: IdMap<Held>,
    /// What storages were when the fault came that nobody has heard of yet.
    kept: IdMap<Held>,
    /// What was charged for there being so many.
    books: u64,
    arguments: Vec<*mut RawStorage>,
    fresh: Vec<Storage>,
    /// While the client profiles.
    profile: Option<Profile>,
}

impl TorchMachine {
    /// A session that holds nothing.
    pub fn new(port: Port, inbound: Inbound, outbound: Outbound, device: DeviceKind) -> Self {
        memory::set_outbound(outbound);
        Self {
            port,
            inbound,
            transfers: Transfers::default(),
            pins: Vec::new(),
            on_host: matches!(device, DeviceKind::Host(_)),
            speed_percent: 100,
            operators: IdMap::default(),
            storages: IdMap::default(),
            kept: IdMap::default(),
            books: 0,
            arguments: Vec::new(),
            fresh: Vec::new(),
            profile: None,
        }
    }

    /// Each operator is to take as much longer as if the device had this speed, of 100 percent.
    pub fn slow_down(&mut self, speed_percent: u32) {
        self.speed_percent = speed_percent.clamp(1, 100);
    }

    /// The client begins to profile, or ends to.
    ///
    /// # Errors
    /// The ring's.
    pub fn set_profiling(&mut self, profiles: bool) -> Result<(), RingError> {
        match self.profile.take() {
            Some(profile) if !profiles => profile.finish(&mut self.port),
            known => {
                self.profile = profiles.then(|| known.unwrap_or_default());
                Ok(())
            }
        }
    }

    /// The next frame came then, its raw bytes then.
    pub fn frame_came(&mut self, came: u64, landed: u64) {
        if let Some(profile) = &mut self.profile {
            profile.came(came, landed);
        }
    }

    /// A frame of records is taken.
    pub fn takes_frame(&mut self) {
        if let Some(profile) = &mut self.profile {
            profile.takes(&mut self.port);
        }
    }

    /// Storages that are held.
    pub fn tensors(&self) -> u64 {
        self.storages.len() as u64
    }

    /// Waits until the device has done what it was told. On the host it has.
    pub fn synchronize(&self) -> Result<(), Failure> {
        if self.on_host {
            return Ok(());
        }
        ffi::synchronize()
    }

    /// Whether what was released may be told at once: nothing is under way that reads it.
    pub fn is_done_at_once(&self) -> bool {
        self.on_host
    }

    /// A pool of uploads is gone.
    pub fn pool_gone(&mut self, base: u64) {
        self.inbound.forget(base);
    }

    /// Gives memory back that only makes the next operator faster.
    pub fn trim(&mut self) {
        memory::trim();
    }

    fn storage(&self, id: u64) -> Result<&Storage, Failure> {
        self.storages
            .get(&id)
            .map(|held| &held.storage)
            .ok_or_else(|| unknown_storage(id))
    }

    fn operator(&self, op: u32) -> Result<Operator, Failure> {
        self.operators
            .get(&u64::from(op))
            .map(|(_, operator)| *operator)
            .ok_or_else(|| Failure::new(Code::Protocol, format!("operator {op} was not defined")))
    }

    /// Finds the arguments' storages.
    fn gather(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        self.arguments.clear();
        for id in call.storages {
            let held = self.storages.get(id).ok_or_else(|| unknown_storage(*id))?;
            self.arguments.push(held.storage.as_raw());
        }
        Ok(())
    }

    fn hold(&mut self, id: u64, storage: Storage) -> Result<(), Failure> {
        // On the host everything is counted where it is allocated.
        let charged = if self.on_host { 0 } else { storage.bytes() };
        if charged > 0 && !memory::charge(charged) {
            return Err(over_budget(charged));
        }
        if !self.keep_books(self.storages.len() + 1) {
            memory::discharge(charged);
            return Err(over_budget(STORAGE_BYTES));
        }
        self.hold_charged(id, storage, charged);
        Ok(())
    }

    fn hold_charged(&mut self, id: u64, storage: Storage, charged: u64) {
        if let Some(old) = self.storages.insert(id, Held { storage, charged }) {
            memory::discharge(old.charged);
        }
    }

    fn release(&mut self, id: u64) {
        if let Some(old) = self.storages.remove(&id) {
            memory::discharge(old.charged);
        }
        self.keep_books(self.storages.len());
    }

    /// Charges for there being so many storages: empty ones cost memory too, where there are very many.
    /// False, and nothing changed, if that is past the budget.
    fn keep_books(&mut self, storages: usize) -> bool {
        let wanted = storages.saturating_sub(STORAGES_FREE) as u64 * STORAGE_BYTES;
        if wanted > self.books && !memory::charge(wanted - self.books) {
            return false;
        }
        memory::discharge(self.books.saturating_sub(wanted));
        self.books = wanted;
        true
    }

    /// The daemon says what became of a transfer to here.
    ///
    /// # Errors
    /// Nonsense, or more than there can be.
    pub fn transfer_news(&mut self, header: &Header, payload: &[u8]) -> Result<(), WireError> {
        let fault = || Fault::decode(payload);
        let here = match header.kind {
            Kind::PeerGone => {
                let log = u16::try_from(header.seq)
                    .map_err(|_| WireError::Malformed("a log past 16 bits"))?;
                self.transfers.gone(log, fault()?);
                return Ok(());
            }
            Kind::ArrivedFault => Here::Fault(fault()?),
            _ => {
                let place = payload.first_chunk::<8>().ok_or(WireError::Truncated)?;
                Here::At(u64::from_le_bytes(*place), header.aux)
            }
        };
        let unwanted = self.transfers.arrived(header.seq, here);
        let unwanted =
            unwanted.map_err(|_| WireError::Malformed("more transfers than are expected"))?;
        self.drop_place(unwanted);
        Ok(())
    }

    /// What lies at a place that came is not wanted.
    fn drop_place(&self, place: Option<u64>) {
        if let Some(place) = place.filter(|&place| place != NO_PLACE) {
            memory::release_place(place, 0);
        }
    }

    /// Waits for what storage `id` expects.
    fn wait_for(&mut self, id: u64) -> Result<Option<(Expected, Here)>, Fault> {
        let lost = |why: String| Fault::new(Code::ExecutorDied, 0, why);
        while self.transfers.expected(id).is_some() {
            if let Some(found) = self.transfers.take(id) {
                return Ok(Some(found));
            }
            let frame = self.port.wait_transfer();
            let frame = frame.map_err(|error| lost(error.to_string()))?;
            let frame = frame.ok_or_else(|| {
                lost("too much was recorded while a value of another device was on its way".into())
            })?;
            let header = frame.first_chunk::<HEADER_BYTES>();
            let news = header
                .ok_or(WireError::Truncated)
                .and_then(Header::decode)
                .and_then(|header| self.transfer_news(&header, &frame[HEADER_BYTES..]));
            news.map_err(|error| lost(error.to_string()))?;
        }
        Ok(None)
    }
}

impl Machine for TorchMachine {
    fn begins(&mut self, seq: u64) {
        if let Some(profile) = &mut self.profile {
            profile.begins(seq);
        }
    }

    fn ends(&mut self) {
        if let Some(profile) = &mut self.profile {
            profile.ends(&mut self.port);
        }
    }

    fn define_op(&mut self, op: u32, name: &str) -> Result<(), Failure> {
        if self
            .operators
            .get(&u64::from(op))
            .is_some_and(|(known, _)| known == name)
        {
            return Ok(());
        }
        operators::check(name)?;
        if self.operators.len() >= OPERATORS_MAX && !self.operators.contains_key(&u64::from(op)) {
            return Err(Failure::new(
                Code::Protocol,
                "too many operators were defined",
            ));
        }
        let operator = Operator::find(name)?;
        self.operators
            .insert(u64::from(op), (name.to_owned(), operator));
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        memory::count_operator();
        let operator = self.operator(call.op)?;
        self.gather(call)?;
        self.unpin(call)?;
        let mut fresh = std::mem::take(&mut self.fresh);
        let done = slowed::run(self.speed_percent, || {
            operator.call(call, &self.arguments, &mut fresh)
        });
        let done = done.and_then(|()| {
            fresh
                .drain(..)
                .zip(call.first_fresh..)
                .try_for_each(|(storage, id)| self.hold(id, storage))
        });
        fresh.clear();
        self.fresh = fresh;
        done
    }

    fn call_sync(&mut self, call: &Call<'_>) -> Result<Metas, Failure> {
        memory::count_operator();
        let operator = self.operator(call.op)?;
        self.gather(call)?;
        self.unpin(call)?;
        let done = slowed::run(self.speed_percent, || {
            operator.call_sync(call, &self.arguments)
        });
        let (metas, fresh) = done?;
        for (storage, id) in fresh.into_iter().zip(call.first_fresh..) {
            self.hold(id, storage)?;
        }
        Ok(metas)
    }

    fn alloc(&mut self, id: u64, bytes: u64) -> Result<(), Failure> {
        let storage = Storage::new(bytes)?;
        self.hold(id, storage)
    }

    fn resize(&mut self, id: u64, bytes: u64) -> Result<(), Failure> {
        let raw = self.storage(id)?.as_raw();
        self.unpin_storage(raw)?;
        self.storage(id)?.resize(bytes)?;
        if let Some(held) = self.storages.get_mut(&id)
            && !self.on_host
        {
            memory::discharge(held.charged);
            held.charged = if memory::charge(bytes) { bytes } else { 0 };
        }
        Ok(())
    }

    fn upload(&mut self, id: u64, bytes: u64, source: Source<'_>) -> Result<(), Failure> {
        let storage = match source {
            Source::Inline(inline) => Storage::copy(inline)?,
            Source::NoMemory => return Err(over_budget(bytes)),
            Source::Place(place) if bytes == 0 => {
                memory::release_place(place, 0);
                Storage::new(0)?
            }
            Source::Place(place) => {
                let address = self.inbound.address(place, bytes);
                let address = address
                    .map(|address| NonNull::new(address as *mut u8))
                    .map_err(|error| Failure::new(Code::Protocol, error.to_string()))?
                    .ok_or_else(|| Failure::new(Code::Protocol, "a place at address zero"))?;
                if !self.keep_books(self.storages.len() + 1) {
                    memory::release_place(place, 0);
                    return Err(over_budget(STORAGE_BYTES));
                }
                // What is replaced and what replaces it need no room at once, if there is little.
                if !memory::charge(bytes) {
                    self.release(id);
                    if !memory::charge(bytes) {
                        memory::release_place(place, 0);
                        return Err(over_budget(bytes));
                    }
                }
                // SAFETY: inside memory that is mapped while anything of it is held: arenas as long
                // as `self`, a pool until the daemon says that it is gone, which is after the
                // release of its last place. The daemon gave this place to this upload and takes it
                // back only after the release. Places are aligned to 64.
                let storage = unsafe { Storage::place(address, bytes, place)? };
                self.hold_charged(id, storage, 0);
                return Ok(());
            }
        };
        self.hold(id, storage)
    }

    fn fetch(&mut self, fetch: u64, view: &View<'_>) -> Result<(), Failure> {
        self.stream(To::Client(fetch), view, bytes_of(view)?)
    }

    fn send(&mut self, transfer: u64, view: &View<'_>) -> Result<(), Failure> {
        let bytes = bytes_of(view)?;
        self.stream(To::Device(transfer, bytes), view, bytes)
    }

    fn send_fault(&mut self, transfer: u64, fault: &Fault) {
        // Without a daemon nobody hears of anything.
        let header = Header::new(Kind::TransferFault, transfer, 0);
        drop(self.port.send(header, &fault.encode()));
    }

    fn expect(&mut self, id: u64, bytes: u64, transfer: u64) -> Result<(), Failure> {
        self.transfers.expect(id, Expected { transfer, bytes });
        Ok(())
    }

    fn say(&mut self, frames: &mut Vec<(Header, Vec<u8>)>) {
        for (header, payload) in frames.drain(..) {
            // Without a daemon the wait ends, too.
            drop(self.port.send(header, &payload));
        }
    }

    fn arrive(&mut self, id: u64) -> Result<(), Fault> {
        let Some((expected, here)) = self.wait_for(id)? else {
            return Ok(());
        };
        let (place, bytes) = match here {
            Here::Fault(fault) => return Err(fault),
            Here::At(place, bytes) => (place, bytes),
        };
        if bytes != expected.bytes {
            self.drop_place(Some(place));
            return Err(other_bytes(expected, bytes));
        }
        let source = match place {
            NO_PLACE if bytes > 0 => Source::NoMemory,
            NO_PLACE => Source::Inline(&[]),
            place => Source::Place(place),
        };
        let landed = self.upload(id, bytes, source);
        landed.map_err(|failure| Fault::new(failure.code, 0, failure.message))
    }

    fn free(&mut self, id: u64) {
        match self.transfers.give_up(id) {
            Some(GivenUp::Here(place)) => self.drop_place(Some(place)),
            Some(GivenUp::Comes(expected)) if expected.bytes >= CANCEL_BYTES => {
                // Without a daemon nothing comes.
                let header = Header::new(Kind::Unwanted, expected.transfer, 0);
                drop(self.port.send(header, &[]));
            }
            _ => {}
        }
        self.release(id);
        if let Some(kept) = self.kept.remove(&id) {
            memory::discharge(kept.charged);
        }
    }

    fn bytes(&self, id: u64) -> Option<u64> {
        self.storages.get(&id).map(|held| held.storage.bytes())
    }

    fn keep(&mut self, id: u64, copy: bool) -> Result<(), Failure> {
        let copied = match copy {
            true => Some(self.storage(id)?.duplicate()?),
            false => None,
        };
        let held = self
            .storages
            .remove(&id)
            .ok_or_else(|| unknown_storage(id))?;
        if let Some(copied) = copied
            && let Err(failure) = self.hold(id, copied)
        {
            self.storages.insert(id, held);
            return Err(failure);
        }
        self.kept.insert(id, held);
        Ok(())
    }

    fn restore(&mut self, id: u64) {
        if let Some(held) = self.kept.remove(&id) {
            self.release(id);
            self.storages.insert(id, held);
        }
    }
}

/// Bytes of a view's elements.
fn bytes_of(view: &View<'_>) -> Result<u64, Failure> {
    let element = skeleton::element_bytes(view.dtype);
    let product = element.and_then(|element| {
        view.sizes.iter().try_fold(element, |bytes, &size| {
            bytes.checked_mul(u64::try_from(size).ok()?)
        })
    });
    product.ok_or_else(|| Failure::new(Code::Protocol, "a fetch of an impossible size"))
}

fn unknown_storage(id: u64) -> Failure {
    Failure::new(Code::Protocol, format!("storage {id:#x} is not known"))
}

fn over_budget(bytes: u64) -> Failure {
    Failure::new(
        Code::OutOfMemory,
        format!(
            "out of memory: tried to allocate {bytes} bytes, but the session uses {} of the {} \
             bytes it may use",
            memory::used(),
            memory::limit()
        ),
    )
}
