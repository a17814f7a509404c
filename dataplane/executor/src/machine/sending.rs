//! Elements on their way to the client and to other devices: copied in parts, or sent from where they
//! lie.

use std::time::{Duration, Instant};

use genie_session::fault::Code;
use genie_session::frame::{Header, Kind, NO_PLACE};
use genie_session::machine::{Call, Failure, View};
use genie_session::skeleton;

use super::TorchMachine;
use crate::ffi::{RawStorage, Storage};
use crate::memory;

/// Tensors that may be on their way at a time without a copy.
const PINS_MAX: usize = 64;
/// Bytes of an answer that are copied and sent at a time, and where each part is waited for.
const PART_BYTES: u64 = 1 << 20;
const DEVICE_PART_BYTES: u64 = 8 << 20;
/// How long a fetch waits for the daemon to send earlier replies.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the elements of a view go.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// To the client, as the answer to this fetch.
    Client(u64),
    /// To another device of the session: the transfer, and its bytes in all.
    Device(u64, u64),
}

/// A tensor whose bytes the daemon is sending. Until it has, nothing may write them and nobody
/// else have their memory.
pub(super) struct Pin {
    place: u64,
    storage: Storage,
}

impl TorchMachine {
    /// The bytes of a reply were sent: their place can be used again.
    pub fn place_sent(&mut self, place: u64) {
        if let Some(at) = self.pins.iter().position(|pin| pin.place == place) {
            self.pins.swap_remove(at);
            return;
        }
        if !memory::outbound_free(place) {
            tracing::warn!(place, "the daemon gave back what it never had");
        }
    }

    /// Waits until no storage that `call` writes is being sent.
    pub(super) fn unpin(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        let mut written = Vec::new();
        skeleton::measure(call.skeleton, |flags, _, _| {
            if flags & skeleton::flag::WRITE != 0 {
                written.extend(self.arguments.get(at).copied());
            }
            at += 1;
        })
        .map_err(|error| Failure::new(Code::Protocol, error.to_string()))?;
        for storage in written {
            self.unpin_storage(storage)?;
        }
        Ok(())
    }

    pub(super) fn unpin_storage(&mut self, storage: *const RawStorage) -> Result<(), Failure> {
        let deadline = Instant::now() + PLACE_TIMEOUT;
        while self
            .pins
            .iter()
            .any(|pin| std::ptr::eq(pin.storage.as_raw(), storage))
        {
            match self.port.wait_place_sent(deadline) {
                Ok(Some(place)) => self.place_sent(place),
                _ => {
                    return Err(Failure::new(
                        Code::ExecutorDied,
                        "a tensor that is being fetched was to be written, and the client does \
                         not take it",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Sends a large contiguous tensor from where it lies. False if it lies elsewhere.
    fn send_in_place(
        &mut self,
        to: To,
        view: &View<'_>,
        element: u64,
        bytes: u64,
    ) -> Result<bool, Failure> {
        let storage = self.storage(view.storage)?;
        let offset = view.offset.unsigned_abs().saturating_mul(element);
        let inside = view.offset >= 0 && offset.saturating_add(bytes) <= storage.bytes();
        let place = storage
            .address()
            .filter(|_| inside && self.pins.len() < PINS_MAX)
            .and_then(memory::outbound_place);
        let (Some(place), Some(storage)) = (place, storage.share()) else {
            return Ok(false);
        };
        let place = place + offset;
        self.pins.push(Pin { place, storage });
        self.reply(to, bytes, place).map(|()| true)
    }

    /// Memory for a reply of `bytes` bytes, once earlier replies have left.
    fn outbound_place(&mut self, bytes: u64) -> Result<u64, Failure> {
        let deadline = Instant::now() + PLACE_TIMEOUT;
        loop {
            if let Some(place) = memory::outbound_allocate(bytes) {
                return Ok(place);
            }
            let stats = memory::outbound_stats();
            let sent = if stats.places == 0 || bytes > stats.capacity {
                None
            } else {
                self.port.wait_place_sent(deadline).unwrap_or(None)
            };
            let Some(place) = sent else {
                return Err(Failure::new(
                    Code::OutOfMemory,
                    format!(
                        "out of memory: no room for {bytes} bytes to be fetched; {} of {} bytes \
                         wait to be sent",
                        stats.taken, stats.capacity
                    ),
                ));
            };
            self.place_sent(place);
        }
    }

    /// Copies `bytes` bytes of `view` into the outbound memory and sends them.
    fn part(&mut self, to: To, view: &View<'_>, bytes: u64) -> Result<(), Failure> {
        let place = self.outbound_place(bytes)?;
        let done = memory::outbound_address(place, bytes)
            .ok_or_else(|| Failure::new(Code::Protocol, "a place outside the outbound memory"))
            .and_then(|target| {
                // SAFETY: the target is a place of this many bytes that was just allocated.
                unsafe { self.storage(view.storage)?.fetch(view, target, bytes) }
            });
        // The daemon reads it by another queue.
        if let Err(failure) = done.and_then(|()| self.synchronize()) {
            self.place_sent(place);
            return Err(failure);
        }
        self.reply(to, bytes, place)
    }

    fn reply(&mut self, to: To, bytes: u64, place: u64) -> Result<(), Failure> {
        let place = place.to_le_bytes();
        let sent = match to {
            To::Client(fetch) => {
                let header = Header::new(Kind::Data, fetch, bytes);
                self.port.send(header, &place)
            }
            To::Device(transfer, all) => {
                let mut payload = [0; 16];
                payload[..8].copy_from_slice(&place);
                payload[8..].copy_from_slice(&all.to_le_bytes());
                let header = Header::new(Kind::Transfer, transfer, bytes);
                self.port.send(header, &payload)
            }
        };
        sent.map_err(|error| Failure::new(Code::ExecutorDied, error.to_string()))
    }

    /// Sends the elements of a view, contiguous.
    pub(super) fn stream(&mut self, to: To, view: &View<'_>, bytes: u64) -> Result<(), Failure> {
        self.storage(view.storage)?;
        if bytes == 0 {
            return self.reply(to, 0, NO_PLACE);
        }
        let element = skeleton::element_bytes(view.dtype).unwrap_or(1);
        let part = if self.on_host {
            PART_BYTES
        } else {
            DEVICE_PART_BYTES
        };
        if bytes < part || view.flags != 0 || !is_contiguous(view) {
            return self.part(to, view, bytes);
        }
        if self.send_in_place(to, view, element, bytes)? {
            return Ok(());
        }
        // In parts, so that one is sent while the next is copied.
        let (part, all) = (part / element, bytes / element);
        let mut done = 0;
        while done < all {
            let elements = part.min(all - done);
            let flat = View {
                offset: view.offset.saturating_add_unsigned(done),
                sizes: &[elements as i64],
                strides: &[1],
                ..*view
            };
            self.part(to, &flat, elements * element)?;
            done += elements;
        }
        Ok(())
    }
}

/// Row-major without gaps.
fn is_contiguous(view: &View<'_>) -> bool {
    let mut expected = 1_i64;
    view.sizes
        .iter()
        .zip(view.strides)
        .rev()
        .all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            fits
        })
}
