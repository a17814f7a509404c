//! Queues of the host device: at once, or on a thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::device::gather::{GatherTable, Table};
use crate::device::memory::check_reach;
use crate::device::queue::{QUEUE_DEPTH, check_copy};
use crate::device::{CopyOrder, CopyPiece, DeviceError, DeviceKind, Event, Memory, Queue};

enum Job {
    Copy {
        from: Memory,
        to: Memory,
        pieces: Vec<CopyPiece>,
    },
    Gather(Arc<Table>, usize),
}

/// A queue of the host device.
pub struct HostQueue {
    device: DeviceKind,
    submitted: u64,
    worker: Option<Worker>,
}

struct Worker {
    jobs: Option<SyncSender<Job>>,
    /// Lists of pieces that were copied, to be filled again.
    spare: Receiver<Vec<CopyPiece>>,
    done: Arc<Done>,
    thread: Option<JoinHandle<()>>,
}

/// How many jobs are done.
#[derive(Default)]
struct Done {
    count: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Done {
    fn one_more(&self) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.fetch_add(1, Ordering::Release);
        drop(guard);
        self.changed.notify_all();
    }

    fn wait(&self, count: u64) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.count.load(Ordering::Acquire) < count {
            guard = self
                .changed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl HostQueue {
    pub(super) fn new(device: DeviceKind) -> Self {
        Self {
            device,
            submitted: 0,
            worker: None,
        }
    }

    pub(super) fn with_worker(device: DeviceKind) -> Result<Self, DeviceError> {
        let (jobs, queue) = sync_channel::<Job>(QUEUE_DEPTH);
        // One list more than jobs can be under way.
        let (give_back, spare) = sync_channel(QUEUE_DEPTH + 2);
        let done = Arc::new(Done::default());
        let theirs = Arc::clone(&done);
        let work = move || {
            while let Ok(job) = queue.recv() {
                match job {
                    Job::Copy { from, to, pieces } => {
                        copy(&from, &to, &pieces);
                        // Without room the list is only freed.
                        let _full = give_back.try_send(pieces);
                    }
                    Job::Gather(table, frames) => gather(&table, frames),
                }
                theirs.one_more();
            }
        };
        let thread = std::thread::Builder::new()
            .name("genie-host-queue".into())
            .spawn(work)
            .map_err(|error| DeviceError::Failed {
                device,
                what: "starting a queue's thread",
                reason: error.to_string(),
            })?;
        Ok(Self {
            device,
            submitted: 0,
            worker: Some(Worker {
                jobs: Some(jobs),
                spare,
                done,
                thread: Some(thread),
            }),
        })
    }

    fn next(&mut self) -> Event {
        self.submitted += 1;
        Event(self.submitted)
    }
}

impl Worker {
    fn send(&self, device: DeviceKind, job: Job) -> Result<(), DeviceError> {
        let Some(jobs) = &self.jobs else {
            return Err(gone(device));
        };
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => DeviceError::Full {
                what: "the device's queue",
                max: QUEUE_DEPTH,
            },
            TrySendError::Disconnected(_) => gone(device),
        })
    }
}

fn gone(device: DeviceKind) -> DeviceError {
    DeviceError::Failed {
        device,
        what: "a queue",
        reason: "its thread is gone".into(),
    }
}

/// Only with pieces that `check_copy` has seen.
fn copy(from: &Memory, to: &Memory, pieces: &[CopyPiece]) {
    let (source, target) = (from.address() as *const u8, to.address() as *mut u8);
    for piece in pieces {
        // SAFETY: the piece was found inside both memories, which are the host's, stay mapped for
        // their whole reservation, and are kept alive by the handles.
        unsafe {
            std::ptr::copy(
                source.add(piece.from as usize),
                target.add(piece.to as usize),
                piece.len as usize,
            );
        }
    }
}

fn gather(table: &Table, frames: usize) {
    // SAFETY: the table was checked to be for memory of the host device, whose addresses are the
    // CPU's, and `begin` made it busy and said how many frames were pushed.
    unsafe { table.run_on_host(frames) };
    table.done();
}

impl Queue for HostQueue {
    fn device(&self) -> DeviceKind {
        self.device
    }

    fn copy(
        &mut self,
        from: &Memory,
        to: &Memory,
        pieces: &[CopyPiece],
        _order: CopyOrder,
    ) -> Result<Event, DeviceError> {
        check_copy(self.device, from, to, pieces)?;
        match &self.worker {
            None => copy(from, to, pieces),
            Some(worker) => {
                let mut list = worker.spare.try_recv().unwrap_or_default();
                list.clear();
                list.extend_from_slice(pieces);
                let (from, to) = (from.clone(), to.clone());
                let pieces = list;
                worker.send(self.device, Job::Copy { from, to, pieces })?;
            }
        }
        Ok(self.next())
    }

    fn gather(&mut self, table: &mut GatherTable) -> Result<Event, DeviceError> {
        check_reach(self.device, table.payload())?;
        let (shared, frames) = table.begin()?;
        match &self.worker {
            None => gather(&shared, frames),
            Some(worker) => {
                let job = Job::Gather(Arc::clone(&shared), frames);
                if let Err(error) = worker.send(self.device, job) {
                    shared.done();
                    return Err(error);
                }
            }
        }
        Ok(self.next())
    }

    fn is_done(&mut self, event: Event) -> Result<bool, DeviceError> {
        Ok(match &self.worker {
            None => event.0 <= self.submitted,
            Some(worker) => worker.done.count.load(Ordering::Acquire) >= event.0,
        })
    }

    fn wait(&mut self, event: Event) -> Result<(), DeviceError> {
        if let Some(worker) = &self.worker {
            worker.done.wait(event.0.min(self.submitted));
        }
        Ok(())
    }

    fn read(&mut self, from: &Memory, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        check_reach(self.device, from)?;
        self.wait(Event(self.submitted))?;
        from.read(offset, into)
    }

    fn write(&mut self, to: &Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        check_reach(self.device, to)?;
        self.wait(Event(self.submitted))?;
        to.write(offset, bytes)
    }
}

impl Drop for Worker {
    /// Lets the thread finish what it has.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
