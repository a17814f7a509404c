//! What runs the records of a session: the executor implements it, [`crate::node`] drives it.

use crate::fault::{Code, Fault};
use crate::frame::Header;

/// One operator call with every storage named by its id.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Sequence number of its record.
    pub seq: u64,
    /// The operator, as [`Machine::define_op`] numbered it.
    pub op: u32,
    /// Argument skeleton ([`crate::skeleton`]), already measured: the streams below fit it.
    pub skeleton: &'a [u8],
    /// Storage ids, one for each tensor argument in order.
    pub storages: &'a [u64],
    /// Shape-deciding integers in order.
    pub params: &'a [i64],
    /// Other numbers in order.
    pub data: &'a [i64],
    /// Result skeleton, already measured. Empty for [`Machine::call_sync`].
    pub out_skeleton: &'a [u8],
    /// Sizes and strides of fresh results, as the client inferred them.
    pub out_params: &'a [i64],
    /// Id of the first fresh storage; the following ones count up.
    pub first_fresh: u64,
    /// Fresh storages: exactly so many for [`Machine::call`], at most for [`Machine::call_sync`].
    pub fresh: u64,
}

/// A strided view of a storage.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Storage id.
    pub storage: u64,
    /// [`crate::skeleton::flag`] bits (negative, conjugate).
    pub flags: u8,
    /// c10 `ScalarType`.
    pub dtype: u8,
    /// Offset in elements.
    pub offset: i64,
    /// Sizes.
    pub sizes: &'a [i64],
    /// Strides in elements.
    pub strides: &'a [i64],
}

/// Where an upload's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In the record.
    Inline(&'a [u8]),
    /// At this byte offset of the session's inbound arena. The machine gives the place back
    /// (`PlaceFree`) when the storage dies.
    Place(u64),
    /// The daemon had no memory left and dropped them.
    NoMemory,
}

/// Why the machine could not do it. [`crate::node`] poisons what depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Class.
    pub code: Code,
    /// For a person.
    pub message: String,
}

impl Failure {
    /// A failure of `code`.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Results of a synchronous call, as the client learns them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metas {
    /// Result skeleton; fresh results took ids from `first_fresh` up, in order.
    pub out_skeleton: Vec<u8>,
    /// Sizes and strides of fresh results.
    pub out_params: Vec<i64>,
    /// Results that are not tensors: an argument skeleton of scalar tags.
    pub value_skeleton: Vec<u8>,
    /// Their numbers.
    pub value_data: Vec<i64>,
}

/// The hands of a session: holds storages by id and runs operators on them.
///
/// A call that fails leaves the fresh storages of that call undefined: [`crate::node`] never
/// names them again but to free them, and freeing an unknown id does nothing.
pub trait Machine {
    /// Operator `op` is `name` (`aten::add.Tensor`) from now on.
    ///
    /// # Errors
    /// Not on the allow-list, or not known to this libtorch.
    fn define_op(&mut self, op: u32, name: &str) -> Result<(), Failure>;

    /// Record `seq` begins: what is asked for until [`Machine::ends`] is for it.
    fn begins(&mut self, _seq: u64) {}

    /// The record that began, if one did, is done.
    fn ends(&mut self) {}

    /// Runs an operator whose results the client predicted; binds fresh results to their ids.
    ///
    /// # Errors
    /// What the operator raised, or results that are not of the predicted shape.
    fn call(&mut self, call: &Call<'_>) -> Result<(), Failure>;

    /// Runs an operator whose results only it knows.
    ///
    /// # Errors
    /// As [`Machine::call`].
    fn call_sync(&mut self, call: &Call<'_>) -> Result<Metas, Failure>;

    /// A new storage of `bytes` uninitialised bytes.
    ///
    /// # Errors
    /// Out of memory.
    fn alloc(&mut self, id: u64, bytes: u64) -> Result<(), Failure>;

    /// Grows or shrinks a storage, keeping what fits.
    ///
    /// # Errors
    /// Out of memory.
    fn resize(&mut self, id: u64, bytes: u64) -> Result<(), Failure>;

    /// Replaces all of storage `id` (new, or known with any size) by `bytes` bytes.
    ///
    /// # Errors
    /// Out of memory, a place outside the arena. What was there may be gone.
    fn upload(&mut self, id: u64, bytes: u64, source: Source<'_>) -> Result<(), Failure>;

    /// Sends the elements of `view`, contiguous in row-major order, as the answer to `fetch`.
    ///
    /// # Errors
    /// What copying raised.
    fn fetch(&mut self, fetch: u64, view: &View<'_>) -> Result<(), Failure>;

    /// Sends the elements of `view`, contiguous in row-major order, as `transfer` to the device of the
    /// session that expects it.
    ///
    /// # Errors
    /// What copying raised; no way to another device.
    fn send(&mut self, transfer: u64, view: &View<'_>) -> Result<(), Failure> {
        let _ = (transfer, view);
        Err(Failure::new(Code::Protocol, "there is no other device"))
    }

    /// What was to be sent as `transfer` is not there: whoever expects it hears why.
    fn send_fault(&mut self, transfer: u64, fault: &Fault) {
        let _ = (transfer, fault);
    }

    /// Storage `id` will have `bytes` bytes, which another device of the session sends as `transfer`.
    /// Nothing waits yet; freeing `id` gives them up.
    ///
    /// # Errors
    /// No way to another device.
    fn expect(&mut self, id: u64, bytes: u64, transfer: u64) -> Result<(), Failure> {
        let _ = (id, bytes, transfer);
        Err(Failure::new(Code::Protocol, "there is no other device"))
    }

    /// The machine is about to wait: what was said before leaves first, if it can.
    fn say(&mut self, frames: &mut Vec<(Header, Vec<u8>)>) {
        let _ = frames;
    }

    /// Waits until what storage `id` expects is here.
    ///
    /// # Errors
    /// Why it never will be; [`Fault::log`] says if that is the sender's. There is no such storage then.
    fn arrive(&mut self, id: u64) -> Result<(), Fault> {
        let _ = id;
        Ok(())
    }

    /// Forgets a storage, and what was kept of it. Unknown ids are no error.
    fn free(&mut self, id: u64);

    /// Size of a storage in bytes; `None` if there is none.
    fn bytes(&self, id: u64) -> Option<u64>;

    /// Keeps storage `id` as it is now, for [`Machine::restore`]. With `copy`, `id` goes on with a copy
    /// of it; without, there is no storage `id` until an upload makes one.
    ///
    /// # Errors
    /// Out of memory; nothing has changed then.
    fn keep(&mut self, id: u64, copy: bool) -> Result<(), Failure>;

    /// Storage `id` is again what was kept of it, whatever it is now.
    fn restore(&mut self, id: u64);
}
