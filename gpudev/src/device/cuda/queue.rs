//! A queue of a CUDA device: a stream, and an event for each submission. Not run on a GPU yet (see
//! [`super`]).

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, sys};

use super::Driver;
use super::kernel::{Kernel, LazyKernel};
use crate::device::gather::{GatherTable, Table};
use crate::device::memory::check_reach;
use crate::device::queue::{QUEUE_DEPTH, check_copy};
use crate::device::{CopyOrder, CopyPiece, DeviceError, DeviceKind, Event, Memory, Queue};

/// What must live until a submission is done.
enum Kept {
    Copy(
        #[allow(dead_code, reason = "kept, not used")] Memory,
        #[allow(dead_code, reason = "kept, not used")] Memory,
    ),
    Gather(Arc<Table>),
}

pub(super) struct CudaQueue {
    driver: Driver,
    stream: Arc<CudaStream>,
    kernel: LazyKernel,
    /// One for each submission under way, used in turn.
    events: Vec<CudaEvent>,
    /// The oldest first; its number is `done + 1`.
    under_way: VecDeque<Kept>,
    done: u64,
    failed: Option<DeviceError>,
    /// The driver can copy many pieces in one call.
    batches: bool,
    lists: Lists,
}

/// A batch as the driver takes it; kept to be filled again.
#[derive(Default)]
struct Lists {
    to: Vec<sys::CUdeviceptr>,
    from: Vec<sys::CUdeviceptr>,
    len: Vec<usize>,
}

impl CudaQueue {
    pub(super) fn new(driver: Driver, kernel: LazyKernel) -> Result<Self, DeviceError> {
        driver.bind()?;
        let stream = driver.told("cuStreamCreate", driver.context.new_stream())?;
        let event = |_| driver.told("cuEventCreate", driver.context.new_event(None));
        let events = (0..QUEUE_DEPTH).map(event).collect::<Result<_, _>>()?;
        // SAFETY: the symbol is only looked for, not called by this type.
        let batches =
            unsafe { sys::culib().get::<unsafe extern "C" fn()>(b"cuMemcpyBatchAsync_v2") }.is_ok();
        Ok(Self {
            driver,
            stream,
            kernel,
            events,
            under_way: VecDeque::with_capacity(QUEUE_DEPTH),
            done: 0,
            failed: None,
            batches,
            lists: Lists::default(),
        })
    }

    /// Lets go of what is done.
    fn retire(&mut self) -> Result<(), DeviceError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.driver.bind()?;
        while !self.under_way.is_empty() {
            let slot = (self.done % QUEUE_DEPTH as u64) as usize;
            let Some(event) = self.events.get(slot) else {
                break;
            };
            match self.driver.told("cuEventQuery", event.try_is_complete()) {
                Ok(true) => self.retire_one(),
                Ok(false) => break,
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(())
    }

    fn retire_one(&mut self) {
        if let Some(Kept::Gather(table)) = self.under_way.pop_front() {
            table.done();
        }
        self.done += 1;
    }

    /// Notes a failure of the device, which is final.
    fn fail(&mut self, error: DeviceError) -> DeviceError {
        self.failed = Some(error.clone());
        error
    }

    fn make_room(&mut self) -> Result<(), DeviceError> {
        self.retire()?;
        if self.under_way.len() == QUEUE_DEPTH {
            return Err(DeviceError::Full {
                what: "the device's queue",
                max: QUEUE_DEPTH,
            });
        }
        Ok(())
    }

    /// Marks the end of a submission. From here on the device may use what is kept.
    fn submitted(&mut self, kept: Kept) -> Result<Event, DeviceError> {
        let number = self.done + self.under_way.len() as u64;
        let slot = (number % QUEUE_DEPTH as u64) as usize;
        self.under_way.push_back(kept);
        let recorded = match self.events.get(slot) {
            Some(event) => event.record(&self.stream),
            None => Ok(()),
        };
        match self.driver.told("cuEventRecord", recorded) {
            Ok(()) => Ok(Event(number + 1)),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn copy_each(&self, from: u64, to: u64, pieces: &[CopyPiece]) -> Result<(), DeviceError> {
        let stream = self.stream.cu_stream();
        for piece in something(pieces) {
            let (source, target) = (from + piece.from, to + piece.to);
            // SAFETY: the piece was found inside both memories, which are kept until the event.
            let answer = unsafe { sys::cuMemcpyAsync(target, source, piece.len as usize, stream) };
            self.driver.told("cuMemcpyAsync", answer.result())?;
        }
        Ok(())
    }

    fn copy_batch(&mut self, from: u64, to: u64, pieces: &[CopyPiece]) -> Result<(), DeviceError> {
        let lists = &mut self.lists;
        lists.to.clear();
        lists.from.clear();
        lists.len.clear();
        for piece in something(pieces) {
            lists.to.push(to + piece.to);
            lists.from.push(from + piece.from);
            lists.len.push(piece.len as usize);
        }
        if lists.len.is_empty() {
            return Ok(());
        }
        // SAFETY: all-zero bytes are a valid value: numbers, and places that give no hint.
        let mut how: sys::CUmemcpyAttributes = unsafe { std::mem::zeroed() };
        how.srcAccessOrder = sys::CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
        let mut first = 0;
        // SAFETY: three lists of the same length and one attribute for all, which the driver reads
        // before it returns. The pieces were checked as for `copy_each`.
        let answer = unsafe {
            sys::cuMemcpyBatchAsync_v2(
                lists.to.as_mut_ptr(),
                lists.from.as_mut_ptr(),
                lists.len.as_mut_ptr(),
                lists.len.len(),
                &mut how,
                &mut first,
                1,
                self.stream.cu_stream(),
            )
        };
        self.driver.told("cuMemcpyBatchAsync", answer.result())
    }

    /// Waits for all that was submitted.
    fn drain(&mut self) -> Result<(), DeviceError> {
        self.driver.bind()?;
        let waited = self.stream.synchronize();
        if let Err(error) = self.driver.told("cuStreamSynchronize", waited) {
            return Err(self.fail(error));
        }
        self.retire()
    }

    fn blocking_copy(&mut self, to: u64, from: u64, len: usize) -> Result<(), DeviceError> {
        self.retire()?;
        if len == 0 {
            return self.drain();
        }
        let stream = self.stream.cu_stream();
        // SAFETY: one side was found inside its memory, the other is a slice of the caller's,
        // which lives until `drain` below has waited.
        let answer = unsafe { sys::cuMemcpyAsync(to, from, len, stream) };
        self.driver.told("cuMemcpyAsync", answer.result())?;
        self.drain()
    }
}

/// Copies of nothing are not for the driver, which may refuse their addresses.
fn something(pieces: &[CopyPiece]) -> impl Iterator<Item = &CopyPiece> {
    pieces.iter().filter(|piece| piece.len > 0)
}

impl Queue for CudaQueue {
    fn device(&self) -> DeviceKind {
        self.driver.kind
    }

    fn copy(
        &mut self,
        from: &Memory,
        to: &Memory,
        pieces: &[CopyPiece],
        order: CopyOrder,
    ) -> Result<Event, DeviceError> {
        check_copy(self.driver.kind, from, to, pieces)?;
        self.make_room()?;
        let (source, target) = (from.address(), to.address());
        let copied = if order == CopyOrder::Any && self.batches && pieces.len() > 1 {
            self.copy_batch(source, target, pieces)
        } else {
            self.copy_each(source, target, pieces)
        };
        // Even where some failed, others may be under way.
        let event = self.submitted(Kept::Copy(from.clone(), to.clone()));
        copied.map_err(|error| self.fail(error))?;
        event
    }

    fn gather(&mut self, table: &mut GatherTable) -> Result<Event, DeviceError> {
        check_reach(self.driver.kind, table.payload())?;
        self.make_room()?;
        let kernel = match self.kernel.get() {
            Some(kernel) => kernel.clone(),
            None => {
                let kernel = Kernel::load(&self.driver)?;
                // Another queue may have been faster.
                self.kernel.get_or_init(|| kernel).clone()
            }
        };
        let (shared, frames) = table.begin()?;
        if frames > 0 {
            // SAFETY: the table is busy until `retire_one`, after its event; it was made for
            // memories of this device, and keeps them.
            let launched = unsafe {
                kernel.launch(
                    &self.driver,
                    &self.stream,
                    shared.addresses(),
                    frames as u32,
                )
            };
            if let Err(error) = launched {
                shared.done();
                return Err(self.fail(error));
            }
        }
        self.submitted(Kept::Gather(shared))
    }

    fn is_done(&mut self, event: Event) -> Result<bool, DeviceError> {
        if event.0 > self.done {
            self.retire()?;
        }
        Ok(event.0 <= self.done)
    }

    fn wait(&mut self, event: Event) -> Result<(), DeviceError> {
        self.retire()?;
        while self.done < event.0 && !self.under_way.is_empty() {
            let slot = (self.done % QUEUE_DEPTH as u64) as usize;
            let waited = match self.events.get(slot) {
                Some(event) => event.synchronize(),
                None => Ok(()),
            };
            if let Err(error) = self.driver.told("cuEventSynchronize", waited) {
                return Err(self.fail(error));
            }
            self.retire_one();
        }
        Ok(())
    }

    fn read(&mut self, from: &Memory, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        check_reach(self.driver.kind, from)?;
        let source = from.at(offset, into.len() as u64)?;
        self.blocking_copy(into.as_mut_ptr() as u64, source, into.len())
    }

    fn write(&mut self, to: &Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        check_reach(self.driver.kind, to)?;
        let target = to.at(offset, bytes.len() as u64)?;
        self.blocking_copy(target, bytes.as_ptr() as u64, bytes.len())
    }
}

impl Drop for CudaQueue {
    /// What is under way ends first. If nobody can tell that it did, what the device may still use
    /// is kept for ever.
    fn drop(&mut self) {
        let bound = self.driver.bind();
        let told = |()| {
            let waited = self.stream.synchronize();
            self.driver.told("cuStreamSynchronize", waited)
        };
        match bound.and_then(told) {
            Ok(()) => {
                while !self.under_way.is_empty() {
                    self.retire_one();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "what a queue was using is kept");
                std::mem::forget(std::mem::take(&mut self.under_way));
            }
        }
    }
}
