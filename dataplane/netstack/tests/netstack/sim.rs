//! A switch with hosts, applications and a clock. Frames are lost, repeated and reordered by a
//! seed; applications are polled only when they were woken.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use genie_netstack::{Host, HostConfig};

pub const MS: Duration = Duration::from_millis(1);
pub const PORT: u16 = 7700;
/// Frames that one host may send at one instant; more is a loop without an end.
const BURST_MAX: usize = 10_000;

/// `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Flag>,
}

/// What the switch does to frames.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lost_percent: u64,
    pub repeated_percent: u64,
    /// Each frame takes up to so many microseconds more.
    pub jitter_us: u64,
}

pub struct World {
    pub hosts: Vec<Host>,
    /// Times that a host's `wake` was called.
    pub wakes: Vec<Arc<AtomicU64>>,
    /// A host that is false hears and says nothing.
    pub alive: Vec<bool>,
    pub now: Duration,
    pub faults: Faults,
    pub random: Random,
    /// Frames that left hosts.
    pub frames: u64,
    order: u64,
    flying: BTreeMap<(Duration, u64), (usize, Vec<u8>)>,
    tasks: Vec<Task>,
    /// Every frame that was sent, if somebody asked for them.
    pub tap: Option<Vec<(usize, Vec<u8>)>>,
}

pub fn mac(host: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, 1 + host as u8]
}

pub fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + host as u8)
}

pub fn at(host: usize) -> SocketAddrV4 {
    SocketAddrV4::new(address(host), PORT)
}

pub fn config(host: usize) -> HostConfig {
    HostConfig::new(mac(host), address(host), 24, 77 + host as u64)
}

impl World {
    /// So many hosts, 10.0.0.1 and up, and the seed of the switch.
    pub fn new(hosts: usize, seed: u64) -> Self {
        Self::of((0..hosts).map(config), seed)
    }

    pub fn of(configs: impl IntoIterator<Item = HostConfig>, seed: u64) -> Self {
        let mut world = Self {
            hosts: Vec::new(),
            wakes: Vec::new(),
            alive: Vec::new(),
            now: Duration::from_secs(5),
            faults: Faults::default(),
            random: Random(seed),
            frames: 0,
            order: 0,
            flying: BTreeMap::new(),
            tasks: Vec::new(),
            tap: None,
        };
        for config in configs {
            let wakes = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&wakes);
            let wake = Arc::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
            world.hosts.push(Host::new(config, wake).unwrap());
            world.wakes.push(wakes);
            world.alive.push(true);
        }
        world
    }

    /// Runs an application beside the hosts.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        self.tasks.push(Task {
            future: Box::pin(future),
            woken: Arc::new(Flag(AtomicBool::new(true))),
        });
    }

    /// Runs an application whose result is wanted.
    pub fn start<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Outcome<T> {
        let cell = std::rc::Rc::new(std::cell::RefCell::new(None));
        let result = std::rc::Rc::clone(&cell);
        self.spawn(async move {
            let value = future.await;
            *cell.borrow_mut() = Some(value);
        });
        Outcome(result)
    }

    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Lets hosts and applications do all they can at this instant: they answer each other.
    fn settle(&mut self) {
        while self.run_tasks() | self.transmit() {}
        // Hosts may have woken somebody without sending.
        while self.run_tasks() {
            while self.run_tasks() | self.transmit() {}
        }
    }

    /// Polls who was woken; true if anybody was.
    fn run_tasks(&mut self) -> bool {
        let mut any = false;
        self.tasks.retain_mut(|task| {
            if !task.woken.0.swap(false, Ordering::SeqCst) {
                return true;
            }
            any = true;
            let waker = Waker::from(Arc::clone(&task.woken));
            let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
            polled == Poll::Pending
        });
        any
    }

    /// Puts a frame on the switch as if `from` had sent it, without faults.
    pub fn inject(&mut self, from: usize, frame: Vec<u8>) {
        self.fly(from, frame, Duration::from_micros(10));
    }

    fn fly(&mut self, from: usize, frame: Vec<u8>, delay: Duration) {
        let to_all = frame[0] & 1 == 1;
        for host in 0..self.hosts.len() {
            if host != from && (to_all || frame[..6] == mac(host)) {
                // Two of one instant keep their order.
                self.order += 1;
                let key = (self.now + delay, self.order);
                self.flying.insert(key, (host, frame.clone()));
            }
        }
    }

    /// Lets every host send; true if anybody did.
    fn transmit(&mut self) -> bool {
        let mut any = false;
        let mut out = vec![0; 20_000];
        for host in 0..self.hosts.len() {
            for burst in 0.. {
                assert!(burst < BURST_MAX, "host {host} sends without end");
                let Some(len) = self.hosts[host].poll_transmit(self.now, &mut out) else {
                    break;
                };
                any = true;
                self.frames += 1;
                if !self.alive[host] {
                    continue;
                }
                if let Some(tap) = &mut self.tap {
                    tap.push((host, out[..len].to_vec()));
                }
                let Faults {
                    lost_percent,
                    repeated_percent,
                    jitter_us,
                } = self.faults;
                let copies = 1 + usize::from(self.random.below(100) < repeated_percent);
                for _ in 0..copies {
                    if self.random.below(100) >= lost_percent {
                        let more = self.random.below(jitter_us + 1);
                        let delay = Duration::from_micros(50 + more);
                        self.fly(host, out[..len].to_vec(), delay);
                    }
                }
            }
        }
        any
    }

    /// Runs to the next event. False: there is none.
    pub fn step(&mut self) -> bool {
        self.settle();
        let timeout = self.hosts.iter().filter_map(|host| host.timeout(self.now));
        let flying = self.flying.keys().next().map(|(at, _)| *at);
        let Some(next) = timeout.chain(flying).min() else {
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now
        {
            let (host, frame) = entry.remove();
            if self.alive[host] {
                self.hosts[host].handle(&frame, self.now);
            }
        }
        true
    }

    /// Runs until `done`, or until nothing happens any more. Panics after `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        let mut idle = 0;
        loop {
            if done(self) {
                return;
            }
            let before = self.now;
            let more = self.step();
            idle = if self.now == before { idle + 1 } else { 0 };
            assert!(idle < 1000, "time stands still at {:?}", self.now);
            assert!(
                more || done(self),
                "nothing happens any more at {:?}",
                self.now
            );
            assert!(self.now <= end, "not done in {limit:?}");
        }
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let timeout = self.hosts.iter().filter_map(|host| host.timeout(self.now));
            let flying = self.flying.keys().next().map(|(at, _)| *at);
            match timeout.chain(flying).min() {
                Some(next) if next <= end => self.step(),
                _ => break,
            };
        }
        self.now = end;
        self.settle();
    }

    /// Runs until a connection to `host` can be accepted.
    pub fn accept(&mut self, host: usize) -> genie_netstack::PipeStream {
        let mut accepted = None;
        self.run_until(Duration::from_secs(60), |world| {
            accepted = accepted.take().or_else(|| world.hosts[host].accept());
            accepted.is_some()
        });
        accepted.unwrap().0
    }

    /// A connection from host 0 to host 1, both ends; host 1 listens already.
    pub fn pair(&mut self) -> (genie_netstack::PipeStream, genie_netstack::PipeStream) {
        let client = self.hosts[0].connect(at(1)).unwrap();
        let server = self.accept(1);
        (client, server)
    }

    /// Waits for an application's result.
    pub fn result<T>(&mut self, limit: Duration, result: &Outcome<T>) -> T {
        self.run_until(limit, |_| result.0.borrow().is_some());
        result.0.borrow_mut().take().unwrap()
    }
}

/// What an application will have found.
pub struct Outcome<T>(std::rc::Rc<std::cell::RefCell<Option<T>>>);

impl<T> Outcome<T> {
    pub fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }
}

/// Two hosts, the second of which listens.
pub fn two(seed: u64) -> World {
    let mut world = World::new(2, seed);
    world.hosts[1].listen(PORT, 16).unwrap();
    world
}

/// Bytes that tell places apart.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
