//! A device that receives data, and checks and gathers them some time later, in any order.

use genie_transport::{
    DropReason, HEADER_BYTES, Header, PayloadToken, Regions, Time, Unverified, crc32c,
};

use super::{End, ID, Memory, Random};

/// Carries out what was ordered.
pub trait Gather: Regions {
    /// `data`: what fits; `None`: forget it.
    fn gather(&mut self, token: PayloadToken, data: Option<&[u8]>);
}

impl Gather for Memory {
    fn gather(&mut self, token: PayloadToken, data: Option<&[u8]>) {
        let mine = |order: &(_, _, genie_transport::PayloadRef)| order.2.token == token;
        let orders: Vec<_> = self.orders.iter().copied().filter(mine).collect();
        self.orders.retain(|order| !mine(order));
        for (region, offset, from) in orders {
            if let Some(data) = data {
                let at = from.offset as usize;
                let bytes = &data[at..at + from.len as usize];
                self.write(region, offset, bytes).expect("it was ordered");
            }
        }
    }
}

pub struct Device {
    /// The longest that a check takes.
    pub delay_ns: u64,
    /// The share of checks that fail for no reason.
    pub fails: f64,
    pub verified: u64,
    pub failed: u64,
    /// When, what, with which bytes, and whether it fails anyway.
    queue: Vec<(u64, Unverified, Vec<u8>, bool)>,
}

impl Device {
    pub fn new(delay_ns: u64, fails: f64) -> Self {
        Self {
            delay_ns,
            fails,
            verified: 0,
            failed: 0,
            queue: Vec::new(),
        }
    }

    pub fn next(&self) -> Option<u64> {
        self.queue.iter().map(|(at, ..)| *at).min()
    }

    /// The connection was made anew.
    pub fn forget(&mut self) {
        self.queue.clear();
    }
}

impl<M: Gather> End<M> {
    /// Takes a frame, whole or split.
    pub fn take(&mut self, frame: &mut [u8], now: Time, random: &mut Random) {
        let head_len = match Header::parse(frame) {
            Ok(header) if !header.sealed && header.data_len > 0 => {
                HEADER_BYTES + usize::from(header.control_len) + 2 * 4
            }
            _ => usize::MAX,
        };
        let split = self.device.is_some() && random.chance(0.9);
        let Some((head, data)) = frame.split_at_mut_checked(head_len).filter(|_| split) else {
            let _counted = self.endpoint.handle(frame, now, &mut self.memory);
            return;
        };
        let buffer = genie_transport::DeviceData {
            handle: 3,
            len: data.len(),
        };
        let taken = self
            .endpoint
            .handle_split(head, buffer, now, &mut self.memory);
        let device = self.device.as_mut().expect("looked above");
        match taken {
            Ok((_, Some(unverified))) => {
                let due = now.0 + random.below(device.delay_ns + 1);
                let fails = random.chance(device.fails);
                device.queue.push((due, unverified, data.to_vec(), fails));
            }
            Ok((_, None)) => {}
            Err(reason) => assert_ne!(reason, DropReason::SealedSplit),
        }
    }

    /// Checks what is due.
    pub fn verify(&mut self, now: Time) {
        let Some(device) = &mut self.device else {
            return;
        };
        while let Some(at) = device.queue.iter().position(|(due, ..)| *due <= now.0) {
            let (_, unverified, data, fails) = device.queue.swap_remove(at);
            let data = &data[..unverified.len];
            let fits = !fails && crc32c(0, data) == unverified.crc;
            if fits {
                device.verified += 1;
            } else {
                device.failed += 1;
            }
            let token = unverified.token;
            self.memory.gather(token, fits.then_some(data));
            let connection = self.endpoint.connection(ID).expect("open");
            assert!(connection.verified(token, fits, now));
            assert!(!connection.verified(token, fits, now), "once");
        }
    }
}
