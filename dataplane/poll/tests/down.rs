//! What a loop does while its link takes nothing, or its peer: it sleeps as an idle one does, and
//! sees ends and returns as soon. Time is simulated: turns and naps are counted, by their reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::{DEATH_MAX, FRAME_MAX, Program, Queue, address, engine_config, pattern};
use genie_channel::{Command, Doorbell, ended};
use genie_poll::clock::Clock;
use genie_poll::idle::{Idle, Polling};
use genie_poll::jam::Jam;
use genie_poll::wire::{BURST, Wire, Written};
use genie_poll::{Engine, PeerPlace, Rest, rest};
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role, Secret};

/// What a turn takes on the simulated clock.
const TURN: Duration = Duration::from_micros(1);
/// The longest nap of a loop that expects something.
const NAP: Duration = Duration::from_micros(200);
/// Turns from one in which something was done to the first nap that is as long.
const TO_REST: u64 = 100;
/// Turns that no test needs.
const TURNS_MAX: u64 = 300_000;

/// One end of the link, which keeps what it is not rid of, as a port does.
struct Port {
    out: Queue,
    back: Queue,
    room: Vec<u8>,
    leaving: Vec<Vec<u8>>,
    jam: Jam,
    is_down: Rc<Cell<bool>>,
    /// Its interrupt, which never comes.
    interrupt: Option<Doorbell>,
    lost: u64,
    left: u64,
}

impl Port {
    fn flush(&mut self) -> bool {
        if self.leaving.is_empty() {
            return true;
        }
        if !self.is_down.get() {
            self.left += self.leaving.len() as u64;
            self.out.borrow_mut().extend(self.leaving.drain(..));
            self.jam.took();
            return true;
        }
        let lost = self.jam.refused();
        if lost {
            self.lost += self.leaving.len() as u64;
            self.leaving.clear();
        }
        lost
    }
}

impl Wire for Port {
    type Packet = Vec<u8>;

    fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> usize {
        let frames = self.back.borrow().len().min(BURST);
        for _ in 0..frames {
            let frame = self.back.borrow_mut().pop_front();
            take(&mut frame.unwrap());
        }
        frames
    }

    fn receive_kept(&mut self, _: impl FnMut(Vec<u8>)) -> usize {
        unreachable!("no device is here")
    }

    fn transmit(&mut self, mut write: impl FnMut(&mut [u8]) -> Option<Written>) -> usize {
        let mut sent = 0;
        while self.flush() {
            while self.leaving.len() < BURST
                && let Some(written) = write(&mut self.room)
            {
                self.leaving.push(self.room[..written.len].to_vec());
                sent += 1;
            }
            if self.leaving.is_empty() {
                break;
            }
        }
        sent
    }

    fn is_backlogged(&self) -> bool {
        !self.leaving.is_empty() && self.jam.is_brief()
    }

    fn takes_nothing(&self) -> bool {
        !self.leaving.is_empty()
    }

    fn has_interrupt(&self) -> bool {
        self.interrupt.is_some()
    }

    fn arm(&mut self) -> Option<RawFd> {
        self.interrupt.as_ref().map(|bell| bell.fd().as_raw_fd())
    }

    fn frame_max(&self) -> usize {
        FRAME_MAX
    }
}

/// A loop that is looked at, and its peer.
struct Machine {
    clock: Clock,
    near: Engine<Port>,
    far: Engine<Port>,
    idle: Idle,
    doorbell: Doorbell,
    is_down: Rc<Cell<bool>>,
    /// The peer does nothing any more.
    is_alone: bool,
    /// Turns in which something was done.
    busy: u64,
    rests: HashMap<Rest, u64>,
    longest: Duration,
}

impl Machine {
    fn new(has_interrupt: bool) -> Self {
        let (one, two) = (Queue::default(), Queue::default());
        let (clock, doorbell) = (Clock::simulated(), Doorbell::new().unwrap());
        let is_down = Rc::new(Cell::new(false));
        let engine = |host: u8, out: &Queue, back: &Queue| {
            let port = Port {
                out: Rc::clone(out),
                back: Rc::clone(back),
                room: vec![0; FRAME_MAX],
                leaving: Vec::new(),
                jam: Jam::new(clock.clone()),
                is_down: Rc::clone(&is_down),
                interrupt: has_interrupt.then(|| Doorbell::new().unwrap()),
                lost: 0,
                left: 0,
            };
            let config = engine_config(host);
            Engine::with_clock(port, &config, Arc::new(|| ()), clock.clone()).unwrap()
        };
        let (near, far) = (engine(1, &one, &two), engine(2, &two, &one));
        let idle = Idle::with_clock(Polling::Adaptive, doorbell.clone(), clock.clone(), NAP);
        Self {
            clock,
            near,
            far,
            idle,
            doorbell,
            is_down,
            is_alone: false,
            busy: 0,
            rests: HashMap::new(),
            longest: Duration::ZERO,
        }
    }

    /// A connection with a program at each end.
    fn connect(&mut self, id: u64) -> [Program; 2] {
        let config = |role| {
            let protection = Protection::Sealed(Secret([7; 32]));
            Config::new(ConnectionId(id), Epoch(1), role, protection)
        };
        let (initiator, half) = Program::with_doorbell(self.doorbell.clone());
        let channel = initiator.channel(config(Role::Initiator), PeerPlace::At(address(2)), half);
        self.near.open_channel(channel).unwrap();
        let (responder, half) = Program::new();
        let channel = responder.channel(config(Role::Responder), PeerPlace::Learned, half);
        self.far.open_channel(channel).unwrap();
        [initiator, responder]
    }

    /// One turn of the loop, as it takes them, and one of its peer.
    fn turn(&mut self) {
        let busy = self.near.turn();
        self.clock.pass(TURN);
        if busy {
            self.busy += 1;
            self.idle.busy();
        } else {
            let before = self.clock.elapsed();
            let rest = rest(&mut self.near, &mut self.idle, || false);
            self.longest = self.longest.max(self.clock.elapsed() - before);
            *self.rests.entry(rest).or_default() += 1;
        }
        if !self.is_alone {
            self.far.turn();
        }
        assert!(self.turns() < TURNS_MAX, "{}", self.describe());
    }

    /// Turns until `done`.
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        while !done(self) {
            self.turn();
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.clock.elapsed() + time;
        self.until(|machine| machine.clock.elapsed() >= end);
    }

    /// The link takes nothing from now on. Counts once that is no ring which is full for a moment.
    fn go_down(&mut self) {
        self.is_down.set(true);
        self.near.wire().out.borrow_mut().clear();
        let took = |machine: &mut Self| machine.near.wire().is_backlogged();
        self.until(took);
        self.until(|machine| !took(machine));
        self.count();
    }

    /// Counts from here on.
    fn count(&mut self) {
        (self.busy, self.rests, self.longest) = (0, HashMap::new(), Duration::ZERO);
    }

    fn turns(&self) -> u64 {
        self.busy + self.rests.values().sum::<u64>()
    }

    fn describe(&self) -> String {
        let (now, busy, rests) = (self.clock.elapsed(), self.busy, &self.rests);
        format!("{busy} busy turns and {rests:?} until {now:?}")
    }

    /// What was counted is at most a tenth more than an idle loop would do in `time`, but for what
    /// follows a turn in which something was done: then it comes to rest, by ever longer naps. Such
    /// turns are few, and none is for a program that nobody listens to.
    fn assert_idle(&self, time: Duration) {
        let idle = (time.as_micros() / NAP.as_micros()) as u64;
        let spoken = self.rests.get(&Rest::Spoken).copied().unwrap_or(0);
        let most = idle * 11 / 10 + TO_REST * self.busy;
        assert!(self.turns() < most, "{most}: {}", self.describe());
        let often = 100 * time.as_millis() as u64 / 1000;
        assert!(self.busy < often && spoken < 10, "{}", self.describe());
    }
}

/// Every kind of program: one that says nothing, one that talks for as long as it is let, one with
/// bulk under way, one that leaves in the middle of a word, and one that leaves after it.
fn programs(machine: &mut Machine) -> (Vec<Program>, Vec<Program>) {
    let pairs: Vec<_> = (1..=5).map(|id| machine.connect(id)).collect();
    let (mut here, mut there): (Vec<_>, Vec<_>) = pairs.into_iter().map(|[a, b]| (a, b)).unzip();
    for one in &mut here {
        one.say(b"hello");
    }
    machine.until(|_| {
        there.iter_mut().for_each(Program::listen);
        there.iter().all(|one| one.heard == b"hello")
    });
    let len = 8 << 20;
    here[2].put(Command::Send { place: 0, len });
    there[2].put(Command::Receive { place: 0, len });
    // Its grant is here, and some of it has left.
    machine.run(Duration::from_micros(300));
    (here, there)
}

/// Talks into a connection until it takes no more.
fn talk(one: &mut Program) {
    let words = pattern(64 << 10, 1);
    while one.say(&words) == words.len() {}
}

#[test]
fn a_loop_whose_link_is_down_sleeps_as_an_idle_one() {
    for has_interrupt in [false, true] {
        let mut machine = Machine::new(has_interrupt);
        let (mut here, _there) = programs(&mut machine);
        machine.is_alone = true;
        talk(&mut here[3]);
        here[4].say(b"farewell");
        (here[3].app, here[4].app) = (None, None);
        let began = machine.clock.elapsed();
        machine.go_down();
        machine.until(|machine| {
            // It never stops.
            talk(&mut here[1]);
            here.iter_mut().for_each(Program::listen);
            let silent = machine.clock.elapsed() - began;
            // One turn ends a connection, the next tells its program; a nap is between.
            let late = silent > DEATH_MAX + 2 * (NAP + TURN);
            let over = here[..3].iter().all(|one| one.ended == Some(ended::LOST));
            assert!(over || !late, "{}", machine.describe());
            over
        });
        let ended = machine.clock.elapsed() - began;
        assert!(ended > DEATH_MAX / 2, "{ended:?} is no death of a peer");
        machine.assert_idle(ended);
        // They are kept for a while for their programs, of which two still talk.
        machine.count();
        let began = machine.clock.elapsed();
        talk(&mut here[0]);
        machine.until(|machine| machine.near.connections() == 0);
        let kept = machine.clock.elapsed() - began;
        assert!(kept > Duration::from_millis(500), "{kept:?}");
        machine.assert_idle(kept);
    }
}

#[test]
fn a_session_that_is_opened_while_the_link_is_down_is_no_reason_to_stay_awake() {
    let mut machine = Machine::new(false);
    let [mut here, _there] = machine.connect(1);
    talk(&mut here);
    // Its peer's place on the link is asked for, and nobody hears it.
    machine.go_down();
    let time = Duration::from_secs(2);
    machine.run(time);
    machine.assert_idle(time);
}

#[test]
fn a_peer_that_takes_nothing_is_no_reason_to_stay_awake() {
    let mut machine = Machine::new(false);
    let (mut here, _there) = programs(&mut machine);
    machine.is_alone = true;
    machine.count();
    let time = Duration::from_secs(1);
    let end = machine.clock.elapsed() + time;
    machine.until(|machine| {
        talk(&mut here[1]);
        machine.clock.elapsed() >= end
    });
    // What is not acknowledged is sent again, at times that double.
    machine.assert_idle(time);
}

/// Where the port has an interrupt that is not rung for room, too.
#[test]
fn a_link_that_comes_back_is_used_within_a_nap() {
    for has_interrupt in [false, true] {
        let mut machine = Machine::new(has_interrupt);
        let (mut here, mut there) = programs(&mut machine);
        machine.go_down();
        machine.run(Duration::from_millis(700));
        assert!(machine.near.wire().takes_nothing());
        assert!(machine.near.wire().lost > 0);
        assert_eq!(machine.longest, NAP, "it looks as often as an idle loop");
        let (left, since) = (machine.near.wire().left, machine.clock.elapsed());
        machine.is_down.set(false);
        machine.turn();
        assert!(machine.near.wire().left > left, "{}", machine.describe());
        // And all of them go on.
        there[0].say(b"back");
        there[2].listen();
        machine.until(|_| {
            here.iter_mut().for_each(Program::listen);
            there.iter_mut().for_each(Program::listen);
            here[0].heard == b"back" && there[2].received == 1
        });
        assert!(here.iter().all(|one| one.ended.is_none()));
        let took = machine.clock.elapsed() - since;
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}

/// What the others are compared with.
#[test]
fn an_idle_loop_naps_as_long_as_it_may() {
    let mut machine = Machine::new(false);
    let (_here, _there) = programs(&mut machine);
    machine.run(Duration::from_secs(1));
    machine.count();
    let time = Duration::from_secs(1);
    machine.run(time);
    machine.assert_idle(time);
    let naps = machine.rests[&Rest::Napped];
    assert!(naps * 2 > machine.turns(), "{}", machine.describe());
}
