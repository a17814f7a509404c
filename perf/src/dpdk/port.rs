//! A DPDK port of this process, and the engine over it: opened once, for one measurement after the
//! other. Run so far over memif, AF_XDP and AF_PACKET; a NIC by its PCI address was not there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use genie_dpdk::{Eal, Lcore, Port};
use genie_poll::engine::Engine;
use genie_poll::link::{self, LINK_MEMORY_MIB};
use genie_poll::port::PortWire;
use genie_poll::{LinkConfig, eal};
use genie_transport::ConnectionId;

use crate::spin::Spin;

/// What the EAL takes beside a link's packets.
const EAL_MEMORY_MIB: u32 = LINK_MEMORY_MIB + 64;
/// How often the link is looked at: a memif client connects by that.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection's last frames may take to leave.
const FAREWELL: Duration = Duration::from_millis(50);
/// Turns of a port that nobody measures, at a time.
const REST_TURNS: usize = 64;

/// An open port, driven by the thread that opened it. Fields are dropped in this order.
pub struct DpdkPort {
    engine: Engine<PortWire>,
    port: Port,
    _lcore: Option<Lcore>,
    eal: Eal,
    config: LinkConfig,
    mtu: u16,
    pages: Option<String>,
    spin: Spin,
    looked: Option<Instant>,
    is_up: bool,
}

impl DpdkPort {
    /// Starts DPDK and opens the port. Once in a process.
    pub fn open(config: LinkConfig) -> Result<Self> {
        // Both ends are to find their pages, whichever starts first.
        let (eal, pages) = eal::start(&config.port.address, EAL_MEMORY_MIB, 2 * EAL_MEMORY_MIB)
            .context("no DPDK here, without which there is still TCP")?;
        // Pinned it is already, if it is to be. Without packets at hand it is slower, and right.
        let lcore = Lcore::join(&eal).ok();
        let opened = link::open(&eal, &config, Arc::new(|| ()))
            .with_context(|| format!("the port {} does not open", config.port))?;
        Ok(Self {
            engine: opened.engine,
            port: opened.port,
            _lcore: lcore,
            eal,
            config,
            mtu: opened.mtu,
            pages,
            spin: Spin::new(),
            looked: None,
            is_up: false,
        })
    }

    /// Everything that runs over it.
    pub fn engine(&mut self) -> &mut Engine<PortWire> {
        &mut self.engine
    }

    /// As it was asked for.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What is not the best about its memory.
    #[must_use]
    pub fn pages(&self) -> Option<&str> {
        self.pages.as_deref()
    }

    /// DPDK's version, and the kind of port.
    #[must_use]
    pub fn driver(&self) -> String {
        let text = self.config.port.to_string();
        let kind = text.split(':').next().unwrap_or("a port");
        format!("{} by {kind}", self.eal.version())
    }

    /// The port and its place on the link.
    #[must_use]
    pub fn describe(&self) -> String {
        let (address, prefix) = (self.config.address.ip(), self.config.prefix);
        format!(
            "{} at {address}/{prefix}, MTU {}",
            self.config.port, self.mtu
        )
    }

    /// Everything that can be done now; gives way where that was nothing.
    pub fn turn(&mut self) {
        if self.engine.turn() {
            self.spin.busy();
        } else {
            self.spin.idle();
        }
    }

    /// Whether the link is up. Looks now and then.
    pub fn look(&mut self) -> bool {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            let is_up = self.port.link().is_ok_and(|link| link.up);
            if is_up && !self.is_up {
                self.engine.host().link_up();
            }
            self.is_up = is_up;
        }
        self.is_up
    }

    /// Answers for the host while nothing is measured.
    pub fn rest(&mut self) {
        self.look();
        for _ in 0..REST_TURNS {
            if !self.engine.turn() {
                return;
            }
        }
    }

    /// Ends a connection, and lets its last frames leave.
    pub fn close(&mut self, id: ConnectionId) {
        self.engine.close(id);
        let began = Instant::now();
        while self.engine.connections() > 0 && began.elapsed() < FAREWELL {
            self.turn();
        }
    }

    /// Frames that reached the port and were thrown away, by it or by the engine.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let engine = self.engine.counters().snapshot();
        let port = self.port.stats().unwrap_or_default();
        [
            engine.frames_dropped,
            engine.frames_damaged,
            engine.frames_segmented,
            port.rx_missed,
            port.rx_errors,
            port.rx_no_mbuf,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}
