//! Waiting: one thread reads for all that wait, and looks after the node. Handlers of the program
//! run here and nowhere else in a session.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use genie_session::client::Message;
use genie_session::frame::{Header, Kind};
use genie_shm::clock::now_ns;

use super::heartbeat::{PING_AFTER, Verdict};
use super::outbox::{Ask, COPIED_BYTES_MAX, Owner, Sent, Ticket, is_ping};
use super::reader::{Desk, Reader};
use super::{Error, Exception, Lane, Session};
use crate::link::TICK;

/// How long a thread waits for another that reads before it looks itself.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a thread leaves the right to send to one whose turn it is.
const TURN_AFTER: Duration = Duration::from_micros(50);

impl Session {
    /// Reads and handles frames of `lane` until `pending` is false. The housekeeper reads the others.
    pub(super) fn wait_while(&self, lane: &Lane, pending: impl Fn() -> bool) -> Result<(), Error> {
        let result = {
            let _waiting = lane.slots.wait();
            self.wait_inner(lane, &pending)
        };
        if lane.link.reading_disarms() {
            // Nothing would wake the housekeeper otherwise, for what nobody waits for.
            self.wake.wake_if_idle();
        }
        result
    }

    fn wait_inner(&self, lane: &Lane, pending: &impl Fn() -> bool) -> Result<(), Error> {
        loop {
            // Before the look, so that what comes after it ends the pause.
            let seen = lane.slots.changes();
            if !pending() {
                return Ok(());
            }
            lane.check()?;
            let turn = lane.slots.turn(&lane.reading, |reading| {
                let began = Instant::now();
                while pending() {
                    if !self.read_frame(lane, reading)? || began.elapsed() > TICK {
                        return Ok(true);
                    }
                }
                Ok(false)
            });
            if let Some(ticked) = turn {
                if !ticked? {
                    continue;
                }
            } else {
                lane.slots.pause(seen, LOOK_EVERY);
            }
            self.look()?;
            self.look_after_node(lane, PING_AFTER)?;
        }
    }

    /// Lets handlers of the program run. The calling thread holds nothing: no lock, no loan of its
    /// memory, no frame that is half sent or half read.
    fn look(&self) -> Result<(), Error> {
        self.host.look_at_signals().map_err(|_| Error::Interrupted)
    }

    /// One frame, or a tick (`false`).
    pub(super) fn read_frame(&self, lane: &Lane, reading: &mut Reader) -> Result<bool, Error> {
        let desk = Desk {
            link: &lane.link,
            slots: &lane.slots,
            counters: &self.counters,
            heart: &lane.heart,
            handle: &|header, payload| self.handle(lane, header, payload),
        };
        match reading.frame(&desk) {
            Ok(got) => Ok(got),
            Err(error) => {
                lane.lose_link(&error);
                lane.check().map(|()| false)
            }
        }
    }

    /// Sends what is in any outbox. What waits for `lane` does not care how others fare.
    pub(super) fn pump_all(&self, lane: &Lane) -> Result<(), Error> {
        for other in self.lanes.iter().filter(|other| other.index != lane.index) {
            // A node that is lost says so to whoever uses it.
            if let Err(Error::Interrupted) = self.pump(other) {
                return Err(Error::Interrupted);
            }
        }
        self.pump(lane)
    }

    /// Sends what is in the outbox, unless another thread is at it, or as far as this thread gets.
    pub(super) fn pump(&self, lane: &Lane) -> Result<(), Error> {
        // Somebody may have found the right to send taken after the last look: so once more.
        while lane.outbox.has_work() {
            let Some(mut sender) = lane.outbox.try_sender() else {
                return Ok(());
            };
            if self.send(lane, &mut sender, None)? == Sent::LetGo {
                drop(sender);
                // The housekeeper goes on.
                self.mark_dirty(lane);
                return Ok(());
            }
        }
        Ok(())
    }

    /// How this thread waits for an upload of its memory.
    pub(super) fn owner(&self) -> Owner {
        match self.host.runs_handlers() {
            true => Owner::SendsItself,
            false => Owner::Waits,
        }
    }

    /// Sends up to the bulk of `ticket`, which this thread has lent as [`Session::owner`] says; its
    /// memory is free afterwards.
    pub(super) fn pump_own(&self, lane: &Lane, ticket: Ticket) -> Result<(), Error> {
        match self.owner() {
            Owner::SendsItself => self.send_and_look(lane, ticket),
            Owner::Waits => self.send_and_wait(lane, ticket),
        }
    }

    fn send_and_wait(&self, lane: &Lane, ticket: Ticket) -> Result<(), Error> {
        loop {
            // Whoever has it sends, maybe this memory, and stops soon if the session is over.
            let Some(mut sender) = lane.outbox.sender_within(TICK) else {
                continue;
            };
            let sent = lane
                .check()
                .and_then(|()| self.send(lane, &mut sender, Some(ticket)));
            if sent.is_err() {
                lane.outbox.withdraw(ticket);
            }
            let is_free = !lane.outbox.is_lent(ticket);
            drop(sender);
            sent?;
            if is_free {
                return self.pump(lane);
            }
            // Another sends what comes before it.
            std::thread::sleep(TURN_AFTER);
        }
    }

    fn send_and_look(&self, lane: &Lane, ticket: Ticket) -> Result<(), Error> {
        let sent = self.send_own(lane, ticket);
        if sent.is_err() && lane.check().is_ok() && !lane.outbox.take_back(ticket, COPIED_BYTES_MAX)
        {
            // Neither sent nor copied: the log can't go on without it.
            lane.lose(Error::Genie(
                Exception::NodeLost,
                "interrupted in the middle of sending: the session is over; genie.connect() \
                 starts another"
                    .to_owned(),
            ));
            // The handler that had to wait runs now.
            self.look()?;
        }
        if lane.is_lost() {
            lane.outbox.drop_all();
            return sent.and_then(|()| lane.check());
        }
        sent
    }

    fn send_own(&self, lane: &Lane, ticket: Ticket) -> Result<(), Error> {
        while lane.outbox.is_lent(ticket) {
            lane.check()?;
            if let Some(mut sender) = lane.outbox.sender_within(TICK) {
                let sent = self.send(lane, &mut sender, Some(ticket))?;
                drop(sender);
                if sent == Sent::LetGo {
                    self.mark_dirty(lane);
                }
            }
            if !lane.outbox.is_lent(ticket) {
                break;
            }
            // Another thread is in the midst of a frame, or this one let go of another's.
            if self.host.runs_handlers() && lane.outbox.take_back(ticket, COPIED_BYTES_MAX) {
                break;
            }
            if self.host.is_interrupt_waiting() {
                return Err(Error::Interrupted);
            }
        }
        // What this thread could not send it has left as a copy: now handlers may run.
        if lane.outbox.has_work() && self.host.runs_handlers() {
            self.look()?;
        }
        self.pump(lane)
    }

    fn send(
        &self,
        lane: &Lane,
        sender: &mut super::outbox::Sender,
        mine: Option<Ticket>,
    ) -> Result<Sent, Error> {
        let is_over = || lane.is_lost();
        let lets_go = self.host.runs_handlers();
        let began = Cell::new(0);
        let ask = Ask {
            begin: &|header| {
                if is_over() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                if is_ping(header) {
                    lane.heart.asking();
                }
                if self.profiler.is_on() {
                    began.set(now_ns());
                }
                Ok(())
            },
            go_on: &|stalled, left| {
                if is_over() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                if lets_go && left > COPIED_BYTES_MAX && self.host.is_interrupt_waiting() {
                    return Err(io::Error::new(
                        io::ErrorKind::Interrupted,
                        "interrupted in the middle of sending",
                    ));
                }
                if lane.heart.is_stuck(stalled) {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "it takes no more bytes",
                    ));
                }
                Ok(())
            },
            sent: &|header, bytes, payload| {
                self.counters.sent(bytes as u64);
                if self.profiler.is_on() && began.get() > 0 {
                    (self.profiler).sent(lane.index, header, bytes as u64, began.get());
                }
                if let Some(mut append) = self.append.try_lock() {
                    append.logs[lane.index].log.recycle(payload);
                }
            },
            lets_go,
        };
        match lane.outbox.send(sender, &lane.link, mine, &ask) {
            Ok(sent) => Ok(sent),
            Err(error) => {
                lane.check()?;
                lane.lose_link(&error);
                lane.check().map(|()| Sent::All)
            }
        }
    }

    /// Asks a node that was silent for `quiet` whether it lives; gives it up when it does not answer.
    pub(super) fn look_after_node(&self, lane: &Lane, quiet: Duration) -> Result<(), Error> {
        match lane.heart.look(quiet, lane.link.moved()) {
            Verdict::Well => Ok(()),
            Verdict::Ask(now) => {
                lane.outbox.put(Message {
                    header: Header::new(Kind::Ping, now, 0),
                    payload: Vec::new(),
                });
                // Not waited for: whoever writes now takes it along.
                self.pump(lane)
            }
            Verdict::Dead(silent) => {
                let why = format!("it has not answered for {} ms", silent.as_millis());
                lane.lose_node(&why);
                lane.check()
            }
        }
    }
}
