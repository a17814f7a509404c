//! Which transport the data path has: the one place that decides, says why, and undoes it.
//!
//! The best level that works is taken. A thread of its own looks at the link: when it goes away the
//! data path falls to TCP for new sessions (those on the link end with an error that says so), and
//! comes back by itself when the cause is gone. Each change is logged once, with its cause and, on a
//! gateway, what a round trip to the node costs now and did before.

mod level;
mod probe;
mod words;

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genie_direct::Registration;
use genie_dpdk::{CoreId, Eal, allowed_cores};
use genie_gpudev::device::{self, DeviceKind};
use genie_gpudev::pool::{POOL_BYTES_MIN, Pool, PoolConfig};
use genie_poll::idle::Polling;
use genie_poll::run::OnAccept;
use genie_poll::{LINK_MEMORY_MIB, LinkConfig, LoopOptions, PollLoop, eal};
use parking_lot::{Mutex, RwLock};

use crate::config::{
    Config, ConfigError, DpdkConfig, PollingChoice, ReceiveChoice, TensorsChoice, TransportChoice,
};
pub use level::Level;
use words::{describe, no_dpdk};

/// How often the link is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long between two tries to get DPDK, or the port: doubled each time, since a driver that
/// refuses says so on standard error.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(16);
/// How often a gateway asks whether its node answers on the link.
const PROBE: Duration = Duration::from_secs(2);
/// How long a link may take to come up before the daemon is ready without it.
const FIRST: Duration = Duration::from_millis(300);

/// How the data path stands.
#[derive(Clone)]
pub struct State {
    /// The level.
    pub level: Level,
    /// Why it isn't a better one, and what to do; or what it is.
    pub reason: String,
    /// Who drives the link, where it is up.
    pub poll: Option<Arc<PollLoop>>,
}

/// Decides the level, and keeps what it needs.
pub struct FallbackManager {
    config: Option<DpdkConfig>,
    /// Whose memory sessions have, unless this is a gateway.
    device: Option<DeviceKind>,
    /// Sessions have it in pools.
    pools: bool,
    port: u16,
    probe_to: Option<SocketAddrV4>,
    tcp_probe_to: Option<crate::config::Address>,
    state: RwLock<State>,
    inner: Mutex<Inner>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Inner {
    eal: Option<Eal>,
    /// DPDK was asked to start and can't be asked again.
    hopeless: Option<String>,
    pages: Option<String>,
    poll: Option<Arc<PollLoop>>,
    accept: Option<OnAccept>,
    retry_at: Option<Instant>,
    retry_after: Option<Duration>,
    /// Our device in DPDK's gpudev.
    registration: Option<Registration>,
    probe_at: Option<Instant>,
    /// Whether the node answered the last two probes on the link.
    answers: [bool; 2],
    /// What a connection to the node takes by DPDK and by TCP.
    costs: [Option<Duration>; 2],
}

impl FallbackManager {
    /// Gets the best transport that works, and looks after it from then on. `port` is that of the
    /// control channel on the link; `accept` takes connections to it.
    #[must_use]
    pub fn start(config: &Config, port: u16, accept: Option<OnAccept>) -> Arc<Self> {
        let wanted = config.transport == TransportChoice::Auto;
        let gateway = config.gateway.as_ref();
        let reason = match (wanted, &config.dpdk) {
            (false, _) => "transport is set to tcp",
            (true, None) => "dpdk_port is not set, so DPDK has no port to drive",
            (true, Some(_)) => "the link is starting",
        };
        let manager = Arc::new(Self {
            config: config.dpdk.clone().filter(|_| wanted),
            device: config
                .devices
                .first()
                .map(|device| device.kind)
                .filter(|_| gateway.is_none()),
            pools: config.tensors == TensorsChoice::Pools,
            port,
            probe_to: gateway.and_then(|gateway| gateway.node_dpdk),
            tcp_probe_to: gateway.and_then(|gateway| gateway.node.clone()),
            state: RwLock::new(State {
                level: Level::Tcp,
                reason: reason.to_owned(),
                poll: None,
            }),
            inner: Mutex::new(Inner {
                accept,
                answers: [true; 2],
                ..Inner::default()
            }),
            stop: AtomicBool::new(false),
        });
        if manager.config.is_some() {
            let deadline = Instant::now() + FIRST;
            manager.look(false);
            while manager.is_starting() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                manager.look(false);
            }
        }
        manager.announce();
        if manager.config.is_some() {
            let this = Arc::downgrade(&manager);
            let watch = move || {
                while let Some(manager) = this.upgrade() {
                    if manager.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    manager.look(true);
                    drop(manager);
                    std::thread::sleep(LOOK);
                }
            };
            let thread = std::thread::Builder::new().name("genie-fallback".to_owned());
            if let Err(error) = thread.spawn(watch) {
                tracing::error!("nobody looks after the DPDK link: {error}");
            }
        }
        manager
    }

    /// How the data path stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.read().clone()
    }

    /// The loop of the link, whether it is up or not. A client that asks over the link knows more
    /// of it than was seen here.
    #[must_use]
    pub fn link(&self) -> Option<Arc<PollLoop>> {
        self.inner.lock().poll.clone()
    }

    /// Bytes a second that a session may send on the link.
    #[must_use]
    pub fn bandwidth_max(&self) -> Option<u64> {
        let gbit = self.config.as_ref()?.session_gbit?;
        Some(gbit * 1_000_000_000 / 8)
    }

    /// Whether frames are sealed.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.config.as_ref().is_none_or(|config| config.seal)
    }

    /// Ends the link.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        self.state.write().poll = None;
        inner.poll = None;
        inner.accept = None;
        inner.registration = None;
    }

    fn is_starting(&self) -> bool {
        let inner = self.inner.lock();
        inner.poll.as_ref().is_some_and(|poll| !poll.is_up())
    }

    fn announce(&self) {
        let State { level, reason, .. } = self.state();
        if self.config.is_some() && self.link().is_none() {
            // DPDK was asked for.
            tracing::warn!("data path: {level}: {reason}");
        } else {
            tracing::info!("data path: {level}: {reason}");
        }
    }

    /// Looks at everything once, and changes the level if it must.
    fn look(&self, aloud: bool) {
        let Some(config) = &self.config else { return };
        let mut inner = self.inner.lock();
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let had_hope = inner.hopeless.is_none();
        let next = match self.acquire(config, &mut inner) {
            Ok(poll) => self.judge(&poll, &mut inner),
            Err(reason) => State {
                level: Level::Tcp,
                reason,
                poll: None,
            },
        };
        let pages = inner.pages.clone().filter(|_| next.poll.is_some());
        let costs = inner.costs;
        let is_news = had_hope && inner.hopeless.is_some();
        drop(inner);
        let changed = {
            let mut state = self.state.write();
            let changed = state.level != next.level;
            *state = next.clone();
            changed
        };
        if (changed || is_news) && aloud {
            let penalty = describe(costs);
            match next.level {
                Level::Tcp => tracing::warn!("data path: {}: {}{penalty}", next.level, next.reason),
                _ => tracing::info!("data path: {}: {}{penalty}", next.level, next.reason),
            }
        }
        if changed && let Some(pages) = pages {
            tracing::warn!("DPDK runs on {pages}");
        }
    }

    /// The poll loop, started if need be. `Err` says why there is none.
    fn acquire(&self, config: &DpdkConfig, inner: &mut Inner) -> Result<Arc<PollLoop>, String> {
        if let Some(poll) = &inner.poll {
            return Ok(Arc::clone(poll));
        }
        if let Some(reason) = &inner.hopeless {
            return Err(reason.clone());
        }
        if inner.retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(self.state().reason);
        }
        let wait = inner.retry_after.unwrap_or(RETRY);
        inner.retry_at = Some(Instant::now() + wait);
        inner.retry_after = Some((2 * wait).min(RETRY_MAX));
        let eal = match &inner.eal {
            Some(eal) => eal.clone(),
            None => match eal::start(&config.port.address, LINK_MEMORY_MIB, LINK_MEMORY_MIB) {
                Ok((eal, pages)) => {
                    inner.pages = pages;
                    inner.registration = self.register(&eal);
                    inner.eal = Some(eal.clone());
                    eal
                }
                Err(error) => {
                    let reason = no_dpdk(&error);
                    // What was found before DPDK was asked may change.
                    inner.hopeless = error.is_final().then(|| reason.clone());
                    return Err(reason);
                }
            },
        };
        let link = LinkConfig {
            port: config.port.clone(),
            address: SocketAddrV4::new(config.address.address, self.port),
            prefix: config.address.prefix,
            router: config.router,
        };
        let options = LoopOptions {
            polling: match config.polling {
                PollingChoice::Adaptive => Polling::Adaptive,
                PollingChoice::Busy => Polling::Busy,
            },
            core: config.core.and_then(core),
            listen: inner.accept.clone().map(|accept| (self.port, accept)),
            direct: self.direct(config),
        };
        let poll = PollLoop::start(&eal, &link, options)
            .map_err(|error| format!("no DPDK port {}: {error}", config.port))?;
        let poll = Arc::new(poll);
        inner.retry_after = None;
        tracing::info!("port {}: {}", config.port, poll.facts().granted);
        inner.poll = Some(Arc::clone(&poll));
        Ok(poll)
    }

    /// Shows our device to those who ask DPDK for devices (`rte_gpu_*`).
    fn register(&self, eal: &Eal) -> Option<Registration> {
        // DPDK's own driver may have the others.
        let kind = self
            .device
            .filter(|kind| matches!(kind, DeviceKind::Host(_)))?;
        let device = device::open(kind).ok()?;
        let pool = Pool::new(&*device, PoolConfig::new(POOL_BYTES_MIN)).ok()?;
        Registration::new(eal, device, Arc::new(std::sync::Mutex::new(pool)))
            .inspect_err(|error| tracing::debug!("{kind} is not in DPDK's gpudev: {error}"))
            .ok()
    }

    /// The device in whose memory packets are to arrive, or why in none.
    fn direct(&self, config: &DpdkConfig) -> Result<DeviceKind, String> {
        if config.receive == ReceiveChoice::Staged {
            return Err("dpdk_receive is set to staged".to_owned());
        }
        if config.seal {
            return Err("the CPU opens sealed frames".to_owned());
        }
        let device = self.device.ok_or("a gateway has no device")?;
        if self.pools && matches!(device, DeviceKind::Host(_)) {
            return Err(
                "tensors is set to pools, which are filled from the host's memory".to_owned(),
            );
        }
        Ok(device)
    }

    fn judge(&self, poll: &Arc<PollLoop>, inner: &mut Inner) -> State {
        let facts = poll.facts();
        let tcp = |reason: String| State {
            level: Level::Tcp,
            reason,
            poll: None,
        };
        if !poll.is_up() {
            return tcp(format!(
                "the link of port {} is down; DPDK is used again when it is up",
                facts.port
            ));
        }
        if let Some(node) = self.probe_to
            && inner.probe_at.is_none_or(|at| Instant::now() >= at)
        {
            inner.probe_at = Some(Instant::now() + PROBE);
            let cost = probe::link(poll, node);
            let tcp = self.tcp_probe_to.as_ref();
            // What it was last, where it can't be told now.
            inner.costs[0] = cost.or(inner.costs[0]);
            inner.costs[1] = tcp.and_then(probe::tcp).or(inner.costs[1]);
            inner.answers = [inner.answers[1], cost.is_some()];
        }
        if self.probe_to.is_some() && inner.answers == [false; 2] {
            return tcp("the node does not answer on the link".to_owned());
        }
        let (level, way) = match &facts.direct {
            Ok(kind) => (Level::Direct, format!(", received in the memory of {kind}")),
            Err(_) if self.probe_to.is_some() => (Level::Staged, String::new()),
            Err(reason) => (Level::Staged, format!(", not direct: {reason}")),
        };
        State {
            level,
            reason: format!(
                "port {}, {}, {}MTU {}{way}",
                facts.port,
                facts.address,
                match (self.probe_to, self.seals()) {
                    // A gateway seals what its node asks it to.
                    (Some(_), _) => "",
                    (None, true) => "sealed, ",
                    (None, false) => "not sealed, ",
                },
                facts.mtu
            ),
            poll: Some(Arc::clone(poll)),
        }
    }
}

/// A core that this process may use, by its number.
fn core(wanted: usize) -> Option<CoreId> {
    allowed_cores()
        .into_iter()
        .find(|core| core.raw() == wanted)
}

/// Refuses a core for the poll loop that this process may not use.
///
/// # Errors
/// [`ConfigError::Core`]
pub fn check_core(config: &Config) -> Result<(), ConfigError> {
    let wanted = config.dpdk.as_ref().and_then(|dpdk| dpdk.core);
    match wanted {
        Some(wanted) if core(wanted).is_none() => {
            let allowed: Vec<_> = allowed_cores()
                .iter()
                .map(|core| core.raw().to_string())
                .collect();
            Err(ConfigError::Core {
                wanted,
                allowed: allowed.join(", "),
            })
        }
        _ => Ok(()),
    }
}
