//! The tests, at the end that measures, over any path.

mod flight;

use std::time::Instant;

use anyhow::{Result, bail};

use self::flight::{Credit, Flight, Patience};
use crate::control::{Answer, Ask, Control, PATIENCE};
use crate::interrupt;
use crate::meter::{Meter, Of, Timed};
use crate::options::times::Times;
use crate::options::{How, Test};
use crate::path::{Event, Kind, Part, Path, Plan, SLOTS_MAX, Wait, by_pieces};
use crate::pattern;
use crate::report::Measurement;

/// What a round of a verified test sends, in bytes, if the batch is not more.
const ROUND_BYTES: u64 = 64 << 20;
/// Messages of a round of a verified test.
pub const ROUND_MESSAGES: u64 = 4096;

/// The end that measures.
pub struct Measuring<'a, P> {
    /// The data path.
    pub path: P,
    /// The other end.
    pub control: &'a mut Control,
    /// How to measure.
    pub how: &'a How,
    /// Cores that the other end is pinned to.
    pub pinned_there: usize,
}

/// The name of the pattern in a slot, or message, of a round.
#[must_use]
pub fn seed(round: u64, slot: u64) -> u64 {
    (round << 16) ^ slot
}

impl<P: Path> Measuring<'_, P> {
    /// Runs `test` at every size. Ends early, with what there is, when somebody presses Ctrl-C.
    pub fn run(&mut self, test: Test) -> Result<Vec<Measurement>> {
        self.path.watch(self.control.descriptor());
        let mut results = Vec::new();
        for size in self.how.sizes(test) {
            if interrupt::asked() {
                break;
            }
            let plan = self.plan(test, size)?;
            plan.check().map_err(anyhow::Error::msg)?;
            results.extend(self.one(test, &plan)?);
        }
        self.control.send(&Ask::Bye)?;
        Ok(results)
    }

    fn plan(&self, test: Test, size: u64) -> Result<Plan> {
        let batch = self.how.batch(test, size);
        let is_message = size <= self.path.message_max() as u64;
        let kind = match test {
            Test::Bw => Kind::Transfers,
            Test::Lat if is_message => Kind::EchoMessages,
            Test::Lat => Kind::EchoTransfers,
            Test::Rate if is_message => Kind::Messages,
            Test::Rate => bail!(
                "rate is of messages, and {size} bytes are a transfer here: {} bytes at most, or \
                 measure bw",
                self.path.message_max()
            ),
        };
        let in_round = (ROUND_BYTES / size).clamp(1, u64::from(SLOTS_MAX)) as u32;
        let slots = match kind {
            Kind::Transfers if self.how.verify => batch.max(in_round),
            Kind::Transfers => batch,
            _ => 1,
        };
        Ok(Plan {
            kind,
            size,
            batch,
            slots,
            verify: self.how.verify,
            flip_byte: self.how.flip_byte,
        })
    }

    fn one(&mut self, test: Test, plan: &Plan) -> Result<Option<Measurement>> {
        // The other end touches its memory meanwhile.
        self.control.send(&Ask::Begin(plan.clone()))?;
        self.path.begin(plan)?;
        match self.answer()? {
            Answer::Ready => {}
            other => bail!("an unexpected answer: {other:?}"),
        }
        let before = (self.path.retransmissions(), self.path.dropped());
        let mut meter = Meter::new()?;
        let times = self.how.times();
        match (plan.kind, plan.verify) {
            (Kind::Transfers, false) => self.transfers(plan, &mut meter, times)?,
            (Kind::Transfers, true) => self.transfers_in_rounds(plan, &mut meter, times)?,
            (Kind::EchoTransfers | Kind::EchoMessages, _) => self.echo(plan, &mut meter, times)?,
            (Kind::Messages, _) => self.messages(plan, &mut meter, times)?,
        }
        meter.stop();
        self.control.send(&Ask::Stop)?;
        self.path.nudge()?;
        let served = match self.answer()? {
            Answer::Stopped(served) => served,
            other => bail!("an unexpected answer: {other:?}"),
        };
        self.pinned_there = served.pinned;
        let sent_again = self.path.retransmissions().saturating_sub(before.0);
        let dropped = self.path.dropped().saturating_sub(before.1);
        // Between rounds the other end may poll: what counts is how busy it was while it was
        // measured.
        let busy = served.cpu_seconds.max(0.0) / served.seconds.max(1e-9);
        let cpu_there = busy * meter.counted().as_secs_f64();
        Ok(meter.finish(&Of {
            test: test.name(),
            size_bytes: plan.size,
            batch: plan.batch,
            ways: if test == Test::Lat { 2 } else { 1 },
            cpu_there: Some(cpu_there),
            retransmissions: sent_again.saturating_add(served.retransmissions),
            frames_dropped: dropped.saturating_add(served.frames_dropped),
        }))
    }

    /// As many transfers as fit, without a pause.
    fn transfers(&mut self, plan: &Plan, meter: &mut Meter, times: Times) -> Result<()> {
        self.write_sources(plan, 0)?;
        let mut flight = Flight::new(plan);
        let warm = Instant::now() + times.warmup;
        while Instant::now() < warm && !interrupt::asked() {
            flight.step(&mut self.path, meter, u64::MAX)?;
        }
        self.control.send(&Ask::Mark)?;
        meter.start();
        while meter.goes_on(times.time) {
            flight.step(&mut self.path, meter, u64::MAX)?;
        }
        flight.land(&mut self.path, meter)
    }

    /// Fills every slot once, timed; has it compared, not timed; and so on.
    fn transfers_in_rounds(&mut self, plan: &Plan, meter: &mut Meter, times: Times) -> Result<()> {
        self.control.send(&Ask::Mark)?;
        let mut unmeasured = Meter::new()?;
        let warm = Instant::now() + times.warmup;
        for round in 0.. {
            let warms_up = Instant::now() < warm;
            if !warms_up && !meter.goes_on(times.time) {
                break;
            }
            self.write_sources(plan, round)?;
            let into = if warms_up {
                &mut unmeasured
            } else {
                &mut *meter
            };
            let mut flight = Flight::new(plan);
            into.start();
            while flight.sent < u64::from(plan.slots) {
                flight.step(&mut self.path, into, u64::from(plan.slots))?;
            }
            flight.land(&mut self.path, into)?;
            into.stop();
            meter.verify_errors += self.verify(round, u64::from(plan.slots))?;
            if interrupt::asked() {
                break;
            }
        }
        Ok(())
    }

    /// Fills every source with its pattern of a round.
    fn write_sources(&mut self, plan: &Plan, round: u64) -> Result<()> {
        for slot in 0..plan.slots {
            let seed = seed(round, u64::from(slot));
            by_pieces(&mut self.path, Part::Source, slot, |piece, at| {
                pattern::fill_from(piece, seed, at);
            });
            self.path.written(slot)?;
        }
        Ok(())
    }

    /// There and back, one at a time.
    fn echo(&mut self, plan: &Plan, meter: &mut Meter, times: Times) -> Result<()> {
        let is_message = plan.kind == Kind::EchoMessages;
        let mut message = vec![
            0;
            if is_message {
                usize::try_from(plan.size)?
            } else {
                0
            }
        ];
        pattern::fill(&mut message, seed(0, 0));
        if !is_message {
            self.write_sources(plan, 0)?;
        }
        let mut timed = Timed::new(meter, times);
        for turn in 0.. {
            if !timed.goes_on(|| self.control.send(&Ask::Mark))? {
                break;
            }
            if plan.verify {
                timed.apart(|_| -> Result<()> {
                    if is_message {
                        pattern::fill(&mut message, seed(turn, 0));
                        return Ok(());
                    }
                    self.write_sources(plan, turn)?;
                    by_pieces(&mut self.path, Part::Region, 0, |piece, _| piece.fill(0));
                    self.path.changed(0)
                })?;
            }
            let began = Instant::now();
            self.there_and_back(plan, &message)?;
            timed.meter.done(began);
            if plan.verify {
                timed.apart(|meter| -> Result<()> {
                    if is_message {
                        let got = self.path.message_bytes();
                        meter.verify_errors += differing(got, &message);
                        return Ok(());
                    }
                    self.path.fetch(0)?;
                    by_pieces(&mut self.path, Part::Region, 0, |piece, at| {
                        let seed = seed(turn, 0);
                        meter.verify_errors += pattern::differences_from(piece, seed, at);
                    });
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn there_and_back(&mut self, plan: &Plan, sent: &[u8]) -> Result<()> {
        let mut patience = Patience::new();
        let wanted = match plan.kind {
            Kind::EchoMessages => Event::Message,
            _ => Event::Filled(0),
        };
        loop {
            let gone = match plan.kind {
                Kind::EchoMessages => self.path.message(sent)?,
                _ => self.path.send(0, Part::Source)?,
            };
            if gone {
                break;
            }
            // The last one is not acknowledged yet.
            self.path.next()?;
            self.path.wait(Wait::Path)?;
            patience.waited()?;
        }
        loop {
            match self.path.next()? {
                Some(event) if event == wanted => return Ok(()),
                Some(_) => {}
                None => {
                    self.path.wait(Wait::Path)?;
                    patience.waited()?;
                }
            }
        }
    }

    /// Messages one way; the other end says now and then how many it has.
    fn messages(&mut self, plan: &Plan, meter: &mut Meter, times: Times) -> Result<()> {
        let mut credit = Credit::new(plan);
        let mut message = vec![0; usize::try_from(plan.size)?];
        pattern::fill(&mut message, 0);
        let warm = Instant::now() + times.warmup;
        if plan.verify {
            self.control.send(&Ask::Mark)?;
            for round in 0.. {
                let warms_up = Instant::now() < warm;
                if interrupt::asked() || !warms_up && !meter.goes_on(times.time) {
                    return Ok(());
                }
                if !warms_up {
                    meter.start();
                }
                for number in 0..ROUND_MESSAGES {
                    pattern::fill(&mut message, seed(round, number));
                    credit.send(&mut self.path, &message, meter)?;
                }
                credit.land(&mut self.path, meter)?;
                meter.stop();
                meter.verify_errors += self.verify(round, ROUND_MESSAGES)?;
            }
        }
        while Instant::now() < warm && !interrupt::asked() {
            credit.send(&mut self.path, &message, meter)?;
        }
        self.control.send(&Ask::Mark)?;
        meter.start();
        while meter.goes_on(times.time) {
            credit.send(&mut self.path, &message, meter)?;
        }
        credit.land(&mut self.path, meter)
    }

    fn verify(&mut self, round: u64, count: u64) -> Result<u64> {
        self.control.send(&Ask::Verify { round, count })?;
        self.path.nudge()?;
        match self.answer()? {
            Answer::Verified { differences } => Ok(differences),
            other => bail!("an unexpected answer: {other:?}"),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        answer(self.control, &mut self.path)
    }
}

/// The other end's answer; the path goes on meanwhile.
pub fn answer(control: &mut Control, path: &mut impl Path) -> Result<Answer> {
    let began = Instant::now();
    loop {
        match control.poll()? {
            Some(Answer::Refused { why }) => bail!("the other end: {why}"),
            Some(answer) => return Ok(answer),
            None if began.elapsed() > PATIENCE => {
                bail!("the other end has not answered for {PATIENCE:?}")
            }
            None => {
                path.next()?;
                path.wait(Wait::Control)?;
            }
        }
    }
}

fn differing(got: &[u8], wanted: &[u8]) -> u64 {
    let common = got.len().min(wanted.len());
    let lacking = wanted.len().abs_diff(got.len()) as u64;
    lacking + pattern::differences_between(&got[..common], &wanted[..common])
}
