//! The ARP table (RFC 826): which hardware address a host on the link has.
//!
//! Whoever is on the link can lie, and ARP can't tell. What can be done is done: only sound frames
//! from the link are believed; nobody enters the table unasked but a host that asks for us; a known
//! neighbor keeps its address for a second; and the unasked can't push out those in use.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, Ipv4Cidr};

use crate::counters::NeighborCounters;
use crate::limits::{
    ARP_INTERVAL, NEIGHBOR_AGE_MAX, NEIGHBOR_AGE_REFRESH, NEIGHBOR_LOCK, NEIGHBORS_ASKED_MAX,
    NEIGHBORS_MAX,
};
use crate::settings::{is_hardware_address, is_host};

#[derive(Clone, Copy, Debug)]
struct Neighbor {
    address: Ipv4Addr,
    mac: [u8; 6],
    /// When it was last heard of.
    heard_at: Duration,
    /// When it was last looked up.
    used_at: Option<Duration>,
}

/// What an ARP frame asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing.
    Nothing,
    /// An answer to this host.
    Question([u8; 6], Ipv4Addr),
}

/// The neighbors of a port.
#[derive(Debug)]
pub(crate) struct Neighbors {
    mac: [u8; 6],
    network: Ipv4Cidr,
    router: Option<Ipv4Addr>,
    known: Vec<Neighbor>,
    /// Who was asked for, and when.
    asked: Vec<(Ipv4Addr, Duration)>,
    /// Requests to be sent.
    requests: VecDeque<Ipv4Addr>,
    pub(crate) counters: NeighborCounters,
}

impl Neighbors {
    pub(crate) fn new(mac: [u8; 6], network: Ipv4Cidr, router: Option<Ipv4Addr>) -> Self {
        Self {
            mac,
            network,
            router,
            known: Vec::with_capacity(NEIGHBORS_MAX),
            asked: Vec::with_capacity(NEIGHBORS_ASKED_MAX),
            requests: VecDeque::with_capacity(NEIGHBORS_ASKED_MAX),
            counters: NeighborCounters::default(),
        }
    }

    /// Who on the link takes packets for `to`.
    pub(crate) fn next_hop(&self, to: Ipv4Addr) -> Option<Ipv4Addr> {
        if to == self.network.address() || !is_host(to, self.network) {
            None
        } else if self.network.contains_addr(&to) {
            Some(to)
        } else {
            self.router
        }
    }

    /// The hardware address of a host on the link; asks for it if it is unknown or grows old.
    pub(crate) fn lookup(&mut self, hop: Ipv4Addr, now: Duration) -> Option<[u8; 6]> {
        let fresh = self.known.iter_mut().find(|one| one.fresh(hop, now));
        let found = fresh.map(|one| {
            one.used_at = Some(now);
            (one.mac, now.saturating_sub(one.heard_at))
        });
        if found.is_none_or(|(_, age)| age >= NEIGHBOR_AGE_REFRESH) {
            self.ask(hop, now);
        }
        found.map(|(mac, _)| mac)
    }

    /// The hardware address of a host on the link, if it is known.
    pub(crate) fn peek(&self, hop: Ipv4Addr, now: Duration) -> Option<[u8; 6]> {
        let fresh = self.known.iter().find(|one| one.fresh(hop, now));
        fresh.map(|one| one.mac)
    }

    /// The link was down: whoever is there now may be another. Tells all who are there of us, by
    /// asking for our own address (RFC 5227, section 3).
    pub(crate) fn start_over(&mut self) {
        self.known.clear();
        self.asked.clear();
        self.requests.clear();
        self.requests.push_back(self.network.address());
    }

    /// The next host to be asked for.
    pub(crate) fn next_request(&mut self) -> Option<Ipv4Addr> {
        self.requests.pop_front()
    }

    pub(crate) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Neighbors that are known.
    pub(crate) fn known(&self, now: Duration) -> u64 {
        let young = |one: &&Neighbor| now.saturating_sub(one.heard_at) < NEIGHBOR_AGE_MAX;
        self.known.iter().filter(young).count() as u64
    }

    /// Takes the payload of an ARP frame.
    pub(crate) fn handle(&mut self, arp: &[u8], now: Duration) -> Heard {
        let parsed = ArpPacket::new_checked(arp).and_then(|packet| ArpRepr::parse(&packet));
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: from,
            target_protocol_addr: target,
            ..
        }) = parsed
        else {
            self.counters.refused += 1;
            return Heard::Nothing;
        };
        let mac = source_hardware_addr.0;
        let own = self.network.address();
        // A probe for a duplicate of our address (RFC 5227) has no sender; it is owed an answer.
        let probe = from.is_unspecified() && operation == ArpOperation::Request && target == own;
        let sound = is_hardware_address(&mac)
            && mac != self.mac
            && matches!(operation, ArpOperation::Request | ArpOperation::Reply)
            && (probe || (from != own && self.network.contains_addr(&from)))
            && (probe || is_host(from, self.network));
        if !sound {
            self.counters.refused += 1;
            return Heard::Nothing;
        }
        if !probe {
            self.learn(from, mac, target == own, now);
        }
        if operation == ArpOperation::Request && target == own {
            Heard::Question(mac, from)
        } else {
            Heard::Nothing
        }
    }

    /// An IP packet came from this host: one more sign that a known neighbor is still there.
    pub(crate) fn heard(&mut self, address: Ipv4Addr, mac: [u8; 6], now: Duration) {
        let same = |one: &&mut Neighbor| one.address == address && one.mac == mac;
        if let Some(one) = self.known.iter_mut().find(same)
            && one.fresh(address, now)
        {
            one.heard_at = now;
        }
    }

    fn learn(&mut self, address: Ipv4Addr, mac: [u8; 6], for_us: bool, now: Duration) {
        let question = self.asked.iter().position(|(asked, _)| *asked == address);
        if let Some(one) = self.known.iter_mut().find(|one| one.fresh(address, now)) {
            if one.mac != mac {
                self.counters.changed += 1;
                if now.saturating_sub(one.heard_at) < NEIGHBOR_LOCK {
                    return;
                }
                one.mac = mac;
            }
            one.heard_at = now;
        } else {
            if question.is_none() && !for_us {
                return;
            }
            self.known.retain(|one| one.address != address);
            if !self.make_room(question.is_some(), now) {
                self.counters.refused += 1;
                return;
            }
            self.known.push(Neighbor {
                address,
                mac,
                heard_at: now,
                used_at: None,
            });
        }
        if let Some(at) = question {
            self.asked.swap_remove(at);
        }
    }

    /// Makes room for one more: who is too old goes first, then who was never looked up, and for
    /// an answer to our question who was looked up longest ago.
    fn make_room(&mut self, asked: bool, now: Duration) -> bool {
        if self.known.len() < NEIGHBORS_MAX {
            return true;
        }
        self.known
            .retain(|one| now.saturating_sub(one.heard_at) < NEIGHBOR_AGE_MAX);
        if self.known.len() < NEIGHBORS_MAX {
            return true;
        }
        let oldest = |(_, one): &(usize, &Neighbor)| (one.used_at, one.heard_at);
        let victim = self.known.iter().enumerate().min_by_key(oldest);
        let Some((at, _)) = victim.filter(|(_, one)| asked || one.used_at.is_none()) else {
            return false;
        };
        self.known.swap_remove(at);
        true
    }

    /// Notes a request for `hop`, unless one was sent lately.
    fn ask(&mut self, hop: Ipv4Addr, now: Duration) {
        let before = self.asked.iter_mut().find(|(asked, _)| *asked == hop);
        match before {
            Some((_, at)) if now.saturating_sub(*at) < ARP_INTERVAL => return,
            Some((_, at)) => *at = now,
            None => {
                if self.asked.len() == NEIGHBORS_ASKED_MAX {
                    let oldest = self.asked.iter().enumerate().min_by_key(|(_, (_, at))| *at);
                    let Some((at, asked)) = oldest.map(|(at, (_, asked))| (at, *asked)) else {
                        return;
                    };
                    // All were asked for just now: this one waits, or the rate has no bound.
                    if now.saturating_sub(asked) < ARP_INTERVAL {
                        return;
                    }
                    self.asked.swap_remove(at);
                }
                self.asked.push((hop, now));
            }
        }
        if self.requests.len() < NEIGHBORS_ASKED_MAX && !self.requests.contains(&hop) {
            self.requests.push_back(hop);
        }
    }
}

impl Neighbor {
    fn fresh(&self, address: Ipv4Addr, now: Duration) -> bool {
        self.address == address && now.saturating_sub(self.heard_at) < NEIGHBOR_AGE_MAX
    }
}
