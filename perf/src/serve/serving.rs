//! The tests of one data path, at the end that serves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::control::{Answer, Ask, Control, PATIENCE, Served};
use crate::measure::{ROUND_MESSAGES, seed};
use crate::meter::cpu_time;
use crate::path::{Event, Kind, Part, Path, Plan, Wait, by_pieces};
use crate::pattern;

/// How often a busy end looks for what it is asked.
const LOOK: Duration = Duration::from_millis(1);
/// How long an end waits for the next test, or for anything within one.
const IDLE: Duration = Duration::from_secs(60);

/// Serves tests over `path` until there are no more, or another path is asked for.
pub fn serve_tests(control: &mut Control, path: impl Path, pinned: usize) -> Result<Option<Ask>> {
    let mut serving = Serving {
        path,
        pinned,
        kept: Vec::new(),
    };
    serving.path.watch(control.descriptor());
    let mut since = Instant::now();
    loop {
        match control.poll()? {
            Some(Ask::Begin(plan)) => {
                plan.check().map_err(anyhow::Error::msg)?;
                serving.test(control, &plan)?;
                since = Instant::now();
            }
            Some(Ask::Bye) => return Ok(None),
            Some(other @ Ask::Open(_)) => return Ok(Some(other)),
            Some(other) => bail!("{other:?} outside of a test"),
            None if since.elapsed() > IDLE => bail!("no test for {IDLE:?}"),
            None => {
                serving.path.wait(Wait::Control)?;
            }
        }
    }
}

struct Serving<P> {
    path: P,
    pinned: usize,
    /// Messages of a round, to be compared after it.
    kept: Vec<u8>,
}

/// Time and CPU time since the mark, without comparing.
struct Since {
    marked: Instant,
    cpu_marked: Duration,
    compared: Duration,
}

impl Since {
    fn mark() -> Self {
        Self {
            marked: Instant::now(),
            cpu_marked: cpu_time(),
            compared: Duration::ZERO,
        }
    }

    fn served(&self, sent_again: u64, frames_dropped: u64, pinned: usize) -> Served {
        // Comparing takes a whole core for as long as it takes.
        let cpu = cpu_time().saturating_sub(self.cpu_marked + self.compared);
        Served {
            cpu_seconds: cpu.as_secs_f64(),
            seconds: self
                .marked
                .elapsed()
                .saturating_sub(self.compared)
                .as_secs_f64(),
            retransmissions: sent_again,
            frames_dropped,
            pinned,
        }
    }
}

impl<P: Path> Serving<P> {
    fn test(&mut self, control: &mut Control, plan: &Plan) -> Result<()> {
        self.path.begin(plan)?;
        self.kept.clear();
        if plan.kind == Kind::Messages && plan.verify {
            self.kept
                .reserve_exact(usize::try_from(plan.size * ROUND_MESSAGES)?);
        }
        control.send(&Answer::Ready)?;
        let before = (self.path.retransmissions(), self.path.dropped());
        let mut state = State {
            plan,
            flip: plan.flip_byte,
            messages: 0,
            filled: 0,
            told: 0,
            echo: Vec::with_capacity(self.path.message_max()),
            owed: None,
        };
        let mut since = Since::mark();
        let (mut looked, mut heard) = (Instant::now(), Instant::now());
        let mut is_heard = false;
        loop {
            let stepped = self.step(&mut state)?;
            is_heard |= stepped;
            let look = !stepped && self.path.wait(Wait::Path)?;
            if !look && looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            let ask = control.poll()?;
            if std::mem::take(&mut is_heard) || ask.is_some() {
                heard = looked;
            }
            match ask {
                None if heard.elapsed() > IDLE => bail!("nothing came in a test for {IDLE:?}"),
                None => {}
                Some(Ask::Mark) => since = Since::mark(),
                Some(Ask::Verify { round, count }) => {
                    self.wait_for_round(&mut state, count)?;
                    let began = Instant::now();
                    let differences = self.compare(plan, round, count)?;
                    since.compared += began.elapsed();
                    control.send(&Answer::Verified { differences })?;
                }
                Some(Ask::Stop) => {
                    let sent_again = self.path.retransmissions().saturating_sub(before.0);
                    let dropped = self.path.dropped().saturating_sub(before.1);
                    let served = since.served(sent_again, dropped, self.pinned);
                    return control.send(&Answer::Stopped(served));
                }
                Some(other) => bail!("{other:?} in the middle of a test"),
            }
        }
    }

    /// Takes one event, and does what it asks for. False when there was none.
    fn step(&mut self, state: &mut State<'_>) -> Result<bool> {
        if let Some(owed) = state.owed
            && self.pay(state, owed)?
        {
            state.owed = None;
        }
        let Some(event) = self.path.next()? else {
            return Ok(false);
        };
        match (event, state.plan.kind) {
            (Event::Filled(slot), kind) => {
                state.filled += 1;
                if std::mem::take(&mut state.flip) {
                    self.path.fetch(slot)?;
                    if let Some(byte) = self.path.memory(Part::Region, slot).last_mut() {
                        *byte ^= 1;
                    }
                    self.path.changed(slot)?;
                }
                if kind == Kind::EchoTransfers && !self.pay(state, Owed::Transfer(slot))? {
                    state.owed = Some(Owed::Transfer(slot));
                }
            }
            (Event::Message, Kind::EchoMessages) => {
                state.echo.clear();
                state.echo.extend_from_slice(self.path.message_bytes());
                if std::mem::take(&mut state.flip)
                    && let Some(byte) = state.echo.last_mut()
                {
                    *byte ^= 1;
                }
                if !self.pay(state, Owed::Echo)? {
                    state.owed = Some(Owed::Echo);
                }
            }
            (Event::Message, Kind::Messages) => {
                self.keep(state)?;
                state.messages += 1;
                if state.messages - state.told >= state.plan.credit_every()
                    && !self.pay(state, Owed::Count)?
                {
                    state.owed = Some(Owed::Count);
                }
            }
            (Event::Message, _) => bail!("a message in a test of transfers"),
            (Event::Sent(_), _) => {}
        }
        Ok(true)
    }

    /// Sends what is due. False when there is no room.
    fn pay(&mut self, state: &mut State<'_>, owed: Owed) -> Result<bool> {
        match owed {
            Owed::Transfer(slot) => self.path.send(slot, Part::Region),
            Owed::Echo => self.path.message(&state.echo),
            Owed::Count => {
                let every = state.plan.credit_every();
                let count = state.messages / every * every;
                let paid = self.path.message(&count.to_le_bytes())?;
                if paid {
                    state.told = count;
                }
                Ok(paid)
            }
        }
    }

    fn keep(&mut self, state: &mut State<'_>) -> Result<()> {
        let bytes = self.path.message_bytes();
        if bytes.len() as u64 != state.plan.size {
            bail!("a message of another size than planned");
        }
        if state.plan.verify {
            if self.kept.len() + bytes.len() > self.kept.capacity() {
                bail!("more messages in a round than planned");
            }
            self.kept.extend_from_slice(bytes);
            if std::mem::take(&mut state.flip)
                && let Some(byte) = self.kept.last_mut()
            {
                *byte ^= 1;
            }
        }
        Ok(())
    }

    /// What a round sent may not be taken yet when the question comes: messages are on their way,
    /// transfers were acknowledged by the path and wait for this end (which copies them to a device).
    fn wait_for_round(&mut self, state: &mut State<'_>, count: u64) -> Result<()> {
        let began = Instant::now();
        while !self.has_round(state, count) && began.elapsed() < PATIENCE / 3 {
            if !self.step(state)? {
                self.path.wait(Wait::Path)?;
            }
        }
        state.filled = 0;
        Ok(())
    }

    fn has_round(&self, state: &State<'_>, count: u64) -> bool {
        match state.plan.kind {
            Kind::Messages => self.kept.len() as u64 >= count.min(ROUND_MESSAGES) * state.plan.size,
            _ => state.filled >= count.min(u64::from(state.plan.slots)),
        }
    }

    fn compare(&mut self, plan: &Plan, round: u64, count: u64) -> Result<u64> {
        let mut found = 0;
        if plan.kind == Kind::Messages {
            let size = usize::try_from(plan.size)?;
            for number in 0..count.min(ROUND_MESSAGES) {
                let at = usize::try_from(number)? * size;
                found += match self.kept.get(at..at + size) {
                    Some(bytes) => pattern::differences(bytes, seed(round, number)),
                    None => plan.size,
                };
            }
            self.kept.clear();
            return Ok(found);
        }
        for slot in 0..u32::try_from(count)
            .context("more slots than there are")?
            .min(plan.slots)
        {
            self.path.fetch(slot)?;
            let seed = seed(round, u64::from(slot));
            by_pieces(&mut self.path, Part::Region, slot, |piece, at| {
                found += pattern::differences_from(piece, seed, at);
                // A transfer that never came must not be taken for the next round's.
                piece.fill(0);
            });
            self.path.changed(slot)?;
        }
        Ok(found)
    }
}

struct State<'a> {
    plan: &'a Plan,
    /// A byte is still to be changed.
    flip: bool,
    messages: u64,
    /// Transfers since the last comparison.
    filled: u64,
    told: u64,
    echo: Vec<u8>,
    owed: Option<Owed>,
}

/// What there was no room to send.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Transfer(u32),
    Echo,
    Count,
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::os::fd::RawFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;
    use crate::path::Facts;

    const SLOTS: u32 = 16;
    const BYTES: usize = 64;

    /// Transfers that were acknowledged when they came, and reach their slots when they are taken.
    struct Acknowledged {
        slots: Vec<[u8; BYTES]>,
        waiting: VecDeque<u32>,
    }

    impl Path for Acknowledged {
        fn facts(&mut self) -> Facts {
            unreachable!("not asked of an end that serves")
        }

        fn message_max(&self) -> usize {
            0
        }

        fn begin(&mut self, plan: &Plan) -> Result<()> {
            self.slots = vec![[0; BYTES]; plan.slots as usize];
            self.waiting = (0..plan.slots).collect();
            Ok(())
        }

        fn memory(&mut self, _: Part, slot: u32) -> &mut [u8] {
            &mut self.slots[slot as usize]
        }

        fn send(&mut self, _: u32, _: Part) -> Result<bool> {
            Ok(true)
        }

        fn message(&mut self, _: &[u8]) -> Result<bool> {
            Ok(true)
        }

        fn next(&mut self) -> Result<Option<Event>> {
            let Some(slot) = self.waiting.pop_front() else {
                return Ok(None);
            };
            // So long that the control socket is looked at before all are taken.
            thread::sleep(LOOK);
            pattern::fill(&mut self.slots[slot as usize], seed(0, u64::from(slot)));
            Ok(Some(Event::Filled(slot)))
        }

        fn message_bytes(&self) -> &[u8] {
            &[]
        }

        fn wait(&mut self, _: Wait) -> Result<bool> {
            thread::sleep(LOOK);
            Ok(true)
        }

        fn breathe(&mut self) {}

        fn nudge(&mut self) -> Result<()> {
            Ok(())
        }

        fn watch(&mut self, _: RawFd) {}

        fn retransmissions(&mut self) -> u64 {
            0
        }

        fn dropped(&mut self) -> u64 {
            0
        }
    }

    #[test]
    fn what_waits_to_be_taken_is_taken_before_it_is_compared() {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        let (mut asks, mut serves) = (Control::over_unix(here), Control::over_unix(there));
        let plan = Plan {
            kind: Kind::Transfers,
            size: BYTES as u64,
            batch: SLOTS,
            slots: SLOTS,
            verify: true,
            flip_byte: false,
        };
        let round = Ask::Verify {
            round: 0,
            count: u64::from(SLOTS),
        };
        for ask in [Ask::Begin(plan), round, Ask::Stop, Ask::Bye] {
            asks.send(&ask).unwrap();
        }
        let path = Acknowledged {
            slots: Vec::new(),
            waiting: VecDeque::new(),
        };
        serve_tests(&mut serves, path, 0).unwrap();
        assert!(matches!(asks.receive(PATIENCE).unwrap(), Answer::Ready));
        match asks.receive(PATIENCE).unwrap() {
            Answer::Verified { differences } => assert_eq!(differences, 0),
            other => panic!("{other:?}"),
        }
    }
}
