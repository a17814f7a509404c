//! What happened when, while somebody wants to know: here, on the way, and on the nodes.
//!
//! Times are nanoseconds by [`genie_shm::clock`]; a node's are by its own clock, and [`Clock`] says how
//! far that is from this one.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use genie_session::WireError;
use genie_session::client::Message;
use genie_session::client::{Appended, Draft};
use genie_session::frame::{Header, Kind as FrameKind};
use genie_session::record::Kind;
use genie_session::times::{self, Entry};
use genie_shm::clock::now_ns;
use parking_lot::Mutex;

use super::append::SiteId;
use super::slots::Key;
use super::transcript::Transcript;
use super::{Error, Lane, Origin, Session};

/// Entries of a kind that are kept: a training step has some thousands.
const ENTRIES_MAX: usize = 1 << 20;
/// Times that a node is asked for its clock, before and after: the quickest answer counts.
const CLOCK_ASKS: u64 = 8;

/// A record as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    /// Which device's log it is in.
    pub lane: usize,
    /// Its number there.
    pub seq: u64,
    /// What it is.
    pub kind: Kind,
    /// Its operator, if it runs one.
    pub op: u32,
    /// The line of it, or of its forward.
    pub site: SiteId,
    /// Where it comes from.
    pub origin: Origin,
    /// The thread that recorded it, as the system numbers it.
    pub thread: u64,
    /// When the backend was called.
    pub begun: u64,
    /// When it was in the log.
    pub ended: u64,
    /// Its question, if it asks one by [`Waited::question`].
    pub question: u64,
}

/// A frame that left.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// To which device.
    pub lane: usize,
    /// The first record in it.
    pub seq: u64,
    /// With its raw bytes.
    pub bytes: u64,
    /// When it was its turn.
    pub begun: u64,
    /// When the last of it was handed to the system.
    pub ended: u64,
}

/// A thread waited.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// For which device.
    pub lane: usize,
    /// The thread, as the system numbers it.
    pub thread: u64,
    /// What it asked; zero: for room.
    pub question: u64,
    /// Whether `question` is a record's number: a synchronous operator's.
    pub is_call: bool,
    /// Since when.
    pub begun: u64,
    /// Until when.
    pub ended: u64,
}

/// How far a node's clock is ahead.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Whose.
    pub lane: usize,
    /// When it was asked, by this clock.
    pub at: u64,
    /// Nanoseconds ahead of this clock.
    pub ahead: i64,
    /// How long the answer took: the error is at most half of it.
    pub took: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Profile {
    /// What was recorded.
    pub captured: Vec<Captured>,
    /// What was sent, in the order of each lane.
    pub sent: Vec<Sent>,
    /// Who waited.
    pub waited: Vec<Waited>,
    /// What nodes measured, by lane: of each frame that was sent, in that order, and of records.
    pub measured: Vec<(usize, Entry)>,
    /// How clocks went.
    pub clocks: Vec<Clock>,
    /// What was recorded, whole, where that was asked for.
    pub transcript: Option<Transcript>,
    /// Entries for which there was no room.
    pub dropped: u64,
    /// Since when, and until when.
    pub span: (u64, u64),
    /// Lanes whose nodes were told to measure.
    told: Vec<usize>,
    /// Lanes whose last times came.
    finished: Vec<usize>,
}

/// A session's profile.
#[derive(Default)]
pub(super) struct Profiler {
    is_on: AtomicBool,
    answered: AtomicU64,
    profile: Mutex<Option<Box<Profile>>>,
}

thread_local! {
    static BEGUN: Cell<u64> = const { Cell::new(0) };
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// What this thread records next begins now.
pub fn begins() {
    BEGUN.set(now_ns());
}

/// The calling thread, as the system numbers it.
fn thread() -> u64 {
    if THREAD.get() == 0 {
        // SAFETY: takes and gives numbers.
        THREAD.set(unsafe { libc::gettid() }.unsigned_abs().into());
    }
    THREAD.get()
}

fn push<T>(entries: &mut Vec<T>, dropped: &mut u64, entry: T) {
    if entries.len() < ENTRIES_MAX {
        entries.push(entry);
    } else {
        *dropped += 1;
    }
}

impl Profiler {
    /// Whether anybody wants to know.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    fn note(&self, note: impl FnOnce(&mut Profile)) {
        if let Some(profile) = &mut *self.profile.lock() {
            note(profile);
        }
    }

    /// A record was appended.
    pub(super) fn captured(
        &self,
        lane: usize,
        appended: &Appended,
        draft: &Draft<'_>,
        origin: Origin,
        site: SiteId,
    ) {
        let ended = now_ns();
        let begun = BEGUN.replace(0);
        let captured = Captured {
            lane,
            seq: appended.seq,
            kind: draft.kind,
            op: draft.op,
            site,
            origin,
            thread: thread(),
            begun: if begun == 0 { ended } else { begun },
            ended,
            question: match draft.kind {
                Kind::Fetch | Kind::Barrier => {
                    draft.tail_numbers.first().map_or(0, |&id| id as u64)
                }
                _ => 0,
            },
        };
        self.note(|profile| {
            if let Some(transcript) = &mut profile.transcript {
                let is_backward = origin.forward_nr >= 0;
                transcript.record(profile.captured.len(), lane, draft, appended, is_backward);
            }
            push(&mut profile.captured, &mut profile.dropped, captured);
        });
    }

    /// A storage died.
    pub(super) fn freed(&self, lane: usize, id: u64) {
        self.note(|profile| {
            if let Some(transcript) = &mut profile.transcript {
                transcript.freed(lane, id);
            }
        });
    }

    /// A frame has left, which began to at `begun`.
    pub(super) fn sent(&self, lane: usize, header: &Header, bytes: u64, begun: u64) {
        let is_taken = matches!(
            header.kind,
            FrameKind::Records | FrameKind::Bulk | FrameKind::Rewind
        );
        let sent = Sent {
            lane,
            seq: header.seq,
            bytes,
            begun,
            ended: now_ns(),
        };
        self.note(|profile| match header.kind {
            // What left before it is not measured at the node either.
            FrameKind::Profile if header.aux == 1 => profile.told.push(lane),
            _ if is_taken && profile.told.contains(&lane) => {
                push(&mut profile.sent, &mut profile.dropped, sent);
            }
            _ => {}
        });
    }

    /// This thread has waited for `key` since `begun`.
    pub(super) fn waited(&self, lane: usize, key: Option<Key>, begun: u64) {
        let (question, is_call) = match key {
            Some(Key::Wait(id)) => (id, false),
            Some(Key::Call(seq)) => (seq, true),
            None => (0, false),
        };
        let waited = Waited {
            lane,
            thread: thread(),
            question,
            is_call,
            begun,
            ended: now_ns(),
        };
        self.note(|profile| push(&mut profile.waited, &mut profile.dropped, waited));
    }

    /// A node tells when records ran.
    pub(super) fn measured(
        &self,
        lane: usize,
        payload: &[u8],
        is_all: bool,
    ) -> Result<(), WireError> {
        let entries = times::decode(payload)?;
        self.note(|profile| {
            for entry in entries {
                push(&mut profile.measured, &mut profile.dropped, (lane, entry));
            }
            if is_all {
                profile.finished.push(lane);
            }
        });
        Ok(())
    }

    /// A node answered a ping that was sent at `asked` with its clock.
    pub(super) fn ponged(&self, lane: usize, asked: u64, payload: &[u8]) {
        let Some(theirs) = payload.first_chunk::<8>().filter(|_| asked > 0) else {
            return;
        };
        let took = now_ns().saturating_sub(asked);
        let clock = Clock {
            lane,
            at: asked,
            ahead: u64::from_le_bytes(*theirs).wrapping_sub(asked + took / 2) as i64,
            took,
        };
        self.note(|profile| push(&mut profile.clocks, &mut profile.dropped, clock));
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

impl Session {
    /// From here on notes what happens when, on the nodes too; with `is_whole` also what is recorded, whole.
    ///
    /// # Errors
    /// It does already; interrupted.
    pub fn start_profile(&self, is_whole: bool) -> Result<(), Error> {
        {
            let mut profile = self.profiler.profile.lock();
            if profile.is_some() {
                return Err(Error::Runtime(
                    "this session is profiled already".to_owned(),
                ));
            }
            *profile = Some(Box::new(Profile {
                transcript: is_whole.then(Transcript::default),
                ..Profile::default()
            }));
        }
        let started = self.ask_clocks().and_then(|()| self.tell_profiling(true));
        if started.is_err() {
            self.profiler.profile.lock().take();
        }
        started
    }

    /// Notes no more, and gives what was noted once the nodes have run what was recorded. Raises
    /// nothing of what failed there.
    ///
    /// # Errors
    /// There is no profile; interrupted.
    pub fn stop_profile(&self) -> Result<Profile, Error> {
        if !self.profiler.is_on() {
            return Err(Error::Runtime("this session is not profiled".to_owned()));
        }
        let told = self.tell_profiling(false);
        let told = told.and_then(|()| self.lanes.iter().try_for_each(|lane| self.wait_times(lane)));
        let told = told.and_then(|()| self.ask_clocks());
        let profile = self.profiler.profile.lock().take();
        told?;
        profile
            .map(|profile| *profile)
            .ok_or_else(|| Error::Runtime("the profile was ended by another thread".to_owned()))
    }

    /// Tells all nodes, between what is recorded before and what comes after.
    fn tell_profiling(&self, profiles: bool) -> Result<(), Error> {
        let mut append = self.append.lock();
        self.flush_all(&mut append);
        for lane in self.lanes.iter().filter(|lane| !lane.is_lost()) {
            lane.outbox.put(Message {
                header: Header::new(FrameKind::Profile, 0, u64::from(profiles)),
                payload: Vec::new(),
            });
        }
        self.profiler.note(|profile| match profiles {
            true => profile.span = (now_ns(), 0),
            false => profile.span.1 = now_ns(),
        });
        self.profiler.is_on.store(profiles, Ordering::Relaxed);
        drop(append);
        self.lanes
            .iter()
            .try_for_each(|lane| heard(self.pump(lane)))
    }

    /// Waits for what the node of `lane` has measured.
    fn wait_times(&self, lane: &Lane) -> Result<(), Error> {
        let has_all = || {
            let profile = self.profiler.profile.lock();
            (profile.as_ref()).is_none_or(|profile| profile.finished.contains(&lane.index))
        };
        heard(self.wait_while(lane, || !has_all()))
    }

    fn ask_clocks(&self) -> Result<(), Error> {
        for lane in &self.lanes {
            for _ in 0..CLOCK_ASKS {
                let before = self.profiler.answered.load(Ordering::Relaxed);
                lane.outbox.put(Message {
                    header: Header::new(FrameKind::Ping, 0, now_ns()),
                    payload: Vec::new(),
                });
                heard(self.pump(lane))?;
                let is_silent = || self.profiler.answered.load(Ordering::Relaxed) == before;
                heard(self.wait_while(lane, is_silent))?;
            }
        }
        Ok(())
    }
}

/// A node that is lost says so to whoever uses it, and has nothing to tell.
fn heard(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        _ => Ok(()),
    }
}
