//! What is under way in a test: transfers, or messages that are counted at the other end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::meter::Meter;
use crate::path::{Event, Part, Path, Plan, Wait};

/// Another end that does nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// Gives up an end that does nothing.
pub struct Patience {
    since: Instant,
    waits: u32,
}

impl Patience {
    /// Begins now.
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            waits: 0,
        }
    }

    /// Waited once more without news.
    pub fn waited(&mut self) -> Result<()> {
        self.waits = self.waits.wrapping_add(1);
        // A path that polls waits millions of times a second.
        if self.waits.is_multiple_of(64) && self.since.elapsed() > SILENCE {
            bail!("the other end has done nothing for {SILENCE:?}");
        }
        Ok(())
    }

    fn heard(&mut self) {
        if self.waits > 0 {
            *self = Self::new();
        }
    }
}

/// Transfers under way.
pub struct Flight {
    batch: u32,
    slots: u32,
    /// When the transfer in each slot began.
    began: Vec<Option<Instant>>,
    under_way: u32,
    next: u32,
    /// Transfers that were begun.
    pub sent: u64,
    patience: Patience,
}

impl Flight {
    /// None yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            batch: plan.batch,
            slots: plan.slots,
            began: vec![None; plan.slots as usize],
            under_way: 0,
            next: 0,
            sent: 0,
            patience: Patience::new(),
        }
    }

    /// Starts what has room, up to `most` in all, and takes what is done.
    pub fn step<P: Path>(&mut self, path: &mut P, meter: &mut Meter, most: u64) -> Result<()> {
        while self.under_way < self.batch
            && self.sent < most
            && self.began[self.next as usize].is_none()
        {
            let now = Instant::now();
            if !path.send(self.next, Part::Source)? {
                break;
            }
            self.began[self.next as usize] = Some(now);
            self.next = (self.next + 1) % self.slots;
            self.under_way += 1;
            self.sent += 1;
        }
        let mut heard = false;
        while let Some(event) = path.next()? {
            if let Event::Sent(slot) = event {
                let began = self.began.get_mut(slot as usize).and_then(Option::take);
                meter.done(began.context("a transfer ended that was not under way")?);
                self.under_way -= 1;
                heard = true;
            }
        }
        if heard {
            self.patience.heard();
            return Ok(());
        }
        path.wait(Wait::Path)?;
        self.patience.waited()
    }

    /// Waits for what is under way.
    pub fn land<P: Path>(&mut self, path: &mut P, meter: &mut Meter) -> Result<()> {
        while self.under_way > 0 {
            self.step(path, meter, 0)?;
        }
        Ok(())
    }
}

/// Messages under way, as the other end counts them.
pub struct Credit {
    batch: u64,
    every: u64,
    sent: u64,
    heard: u64,
    /// When the messages that a count is due for were begun: a ring, by the count's number.
    began: [Instant; 4],
    patience: Patience,
}

impl Credit {
    /// None yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            batch: u64::from(plan.batch),
            every: plan.credit_every(),
            sent: 0,
            heard: 0,
            began: [Instant::now(); 4],
            patience: Patience::new(),
        }
    }

    /// Sends a message as soon as there is room.
    pub fn send<P: Path>(&mut self, path: &mut P, bytes: &[u8], meter: &mut Meter) -> Result<()> {
        while self.sent - self.heard >= self.batch || !path.message(bytes)? {
            self.take(path, meter)?;
        }
        if self.sent.is_multiple_of(self.every) {
            self.began[(self.sent / self.every) as usize % self.began.len()] = Instant::now();
        }
        self.sent += 1;
        Ok(())
    }

    /// Takes the counts that came, or waits for one.
    fn take<P: Path>(&mut self, path: &mut P, meter: &mut Meter) -> Result<()> {
        let mut heard = false;
        while let Some(event) = path.next()? {
            let Event::Message = event else { continue };
            let count = path.message_bytes().try_into().map(u64::from_le_bytes);
            let count = count.context("the other end counts in a way of its own")?;
            if count <= self.heard || count > self.sent {
                bail!("the other end counts messages that were not sent");
            }
            let began = self.began[((count - 1) / self.every) as usize % self.began.len()];
            meter.many(count - self.heard, began.elapsed());
            self.heard = count;
            heard = true;
        }
        if heard {
            self.patience.heard();
            return Ok(());
        }
        path.wait(Wait::Path)?;
        self.patience.waited()
    }

    /// Waits until every message was counted. The last may be too few for a count of their own.
    pub fn land<P: Path>(&mut self, path: &mut P, meter: &mut Meter) -> Result<()> {
        while self.sent / self.every * self.every > self.heard {
            self.take(path, meter)?;
        }
        Ok(())
    }
}
