//! Who has which hardware address.

use std::net::Ipv4Addr;
use std::time::Duration;

use genie_netstack::{Host, HostCounters, NEIGHBOR_AGE_MAX, NEIGHBORS_MAX};
use smoltcp::wire::{ArpOperation, ArpOperation::Reply, ArpOperation::Request};

use crate::frames::{arp, ping};
use crate::sim::{MS, World, address, config, mac};

const SECOND: Duration = Duration::from_secs(1);
const ALL: [u8; 6] = [0xff; 6];
const MAC_A: [u8; 6] = [2, 0, 0, 0, 0xa, 0xa];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0xb, 0xb];
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// A host alone, and a clock.
struct Alone {
    host: Host,
    now: Duration,
}

impl Alone {
    fn new() -> Self {
        Self::with_router(None)
    }

    fn with_router(router: Option<Ipv4Addr>) -> Self {
        let mut config = config(0);
        config.router = router;
        let host = Host::new(config, std::sync::Arc::new(|| {})).unwrap();
        let now = 100 * SECOND;
        Self { host, now }
    }

    fn resolve(&mut self, address: Ipv4Addr) -> Option<[u8; 6]> {
        self.host.resolve(address, self.now)
    }

    fn hear(&mut self, operation: ArpOperation, who: ([u8; 6], Ipv4Addr), target: Ipv4Addr) {
        let frame = arp(mac(0), operation, who, target);
        self.host.handle(&frame, self.now);
    }

    /// Frames sent now.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut out = [0; 2000];
        let mut frames = Vec::new();
        while let Some(len) = self.host.poll_transmit(self.now, &mut out) {
            frames.push(out[..len].to_vec());
        }
        frames
    }

    fn count(&self) -> HostCounters {
        self.host.counters()
    }
}

#[test]
fn questions_are_answered() {
    let mut alone = Alone::new();
    let question = arp(ALL, Request, (MAC_A, NEAR), address(0));
    alone.host.handle(&question, alone.now);
    let answer = arp(MAC_A, Reply, (mac(0), address(0)), NEAR);
    assert_eq!(alone.sent(), [answer]);
    // For another, and an announcement of another's: nothing to say.
    for target in [address(1), NEAR] {
        let question = arp(ALL, Request, (MAC_A, NEAR), target);
        alone.host.handle(&question, alone.now);
    }
    assert!(alone.sent().is_empty());
    assert_eq!(alone.count().neighbors.replies, 1);
}

#[test]
fn a_duplicate_of_our_address_is_told() {
    let mut alone = Alone::new();
    let probe = arp(ALL, Request, (MAC_A, Ipv4Addr::UNSPECIFIED), address(0));
    alone.host.handle(&probe, alone.now);
    assert_eq!(alone.sent().len(), 1);
    assert_eq!(alone.count().neighbors.known, 0);
}

#[test]
fn resolve_asks_learns_and_forgets() {
    let mut alone = Alone::new();
    assert_eq!(alone.resolve(NEAR), None);
    let request = arp(ALL, Request, (mac(0), address(0)), NEAR);
    let mut expected = request.clone();
    // The target's hardware address is unknown: zeros.
    expected[32..38].fill(0);
    assert_eq!(alone.sent(), [expected]);
    alone.hear(Reply, (MAC_A, NEAR), address(0));
    assert_eq!(alone.resolve(NEAR), Some(MAC_A));
    assert!(alone.sent().is_empty());

    // Not looked up for a while: gone at its age.
    alone.now += NEIGHBOR_AGE_MAX - MS;
    assert_eq!(alone.count().neighbors.known, 1);
    alone.now += MS;
    assert_eq!(alone.resolve(NEAR), None);
    assert_eq!(alone.count().neighbors.known, 0);
}

#[test]
fn a_link_that_comes_up_has_new_neighbors_and_hears_of_us() {
    let mut alone = Alone::new();
    assert_eq!(alone.resolve(NEAR), None);
    let _ = alone.sent();
    alone.hear(Reply, (MAC_A, NEAR), address(0));
    assert_eq!(alone.resolve(NEAR), Some(MAC_A));

    alone.host.link_up();
    assert_eq!(alone.resolve(NEAR), None, "it may be another host");
    let sent = alone.sent();
    // Who we are, by asking for our own address; and the question of before, again.
    let mut announcement = arp(ALL, Request, (mac(0), address(0)), address(0));
    announcement[32..38].fill(0);
    assert_eq!(sent[0], announcement);
    assert_eq!(sent.len(), 2);
}

#[test]
fn one_request_a_second_and_host() {
    let mut alone = Alone::new();
    for _ in 0..100 {
        for _ in 0..10 {
            assert_eq!(alone.resolve(NEAR), None);
        }
        let _ = alone.sent();
        alone.now += 100 * MS;
    }
    assert_eq!(alone.count().neighbors.requests, 10);
}

#[test]
fn requests_for_many_hosts_are_bounded() {
    let mut alone = Alone::new();
    for host in 2..=250 {
        alone.resolve(Ipv4Addr::new(10, 0, 0, host));
    }
    let sent = alone.sent().len();
    assert!(sent <= 64, "{sent}");
}

#[test]
fn a_neighbor_in_use_is_asked_again_before_it_is_forgotten() {
    let mut alone = Alone::new();
    alone.resolve(NEAR);
    alone.hear(Reply, (MAC_A, NEAR), address(0));
    let mut asked = 0;
    for _ in 0..300 {
        alone.now += SECOND;
        assert_eq!(alone.resolve(NEAR), Some(MAC_A), "at {:?}", alone.now);
        if !alone.sent().is_empty() {
            asked += 1;
            alone.hear(Reply, (MAC_A, NEAR), address(0));
        }
    }
    assert!((5..=8).contains(&asked), "{asked}");
    // It no longer answers: use alone keeps nobody.
    alone.now += NEIGHBOR_AGE_MAX;
    assert_eq!(alone.resolve(NEAR), None);
}

#[test]
fn packets_of_a_neighbor_keep_it() {
    let mut alone = Alone::new();
    alone.resolve(NEAR);
    alone.hear(Reply, (MAC_A, NEAR), address(0));
    for (from_mac, kept) in [(MAC_A, true), (MAC_B, false)] {
        alone.now += NEIGHBOR_AGE_MAX - SECOND;
        let packet = ping(0, from_mac, (NEAR, address(0)), 1, b"");
        alone.host.handle(&packet, alone.now);
        alone.now += 2 * SECOND;
        assert_eq!(alone.resolve(NEAR).is_some(), kept);
    }
}

#[test]
fn off_the_link_goes_to_the_router() {
    let mut alone = Alone::with_router(Some(ROUTER));
    assert_eq!(alone.resolve(FAR), None);
    assert_eq!(&alone.sent()[0][38..42], ROUTER.octets());
    alone.hear(Reply, (MAC_B, ROUTER), address(0));
    assert_eq!(alone.resolve(FAR), Some(MAC_B));

    let mut alone = Alone::new();
    assert_eq!(alone.resolve(FAR), None);
    assert!(alone.sent().is_empty());
    assert_eq!(alone.count().no_route, 1);
}

#[test]
fn lies_are_not_believed() {
    let group = [1, 0, 0x5e, 0, 0, 1];
    let lies = [
        (Reply, (MAC_A, FAR)),
        (Request, (MAC_A, FAR)),
        (Reply, (MAC_A, Ipv4Addr::new(10, 0, 0, 255))),
        (Reply, (MAC_A, Ipv4Addr::new(10, 0, 0, 0))),
        (Reply, (MAC_A, Ipv4Addr::UNSPECIFIED)),
        (Reply, (MAC_A, address(0))),
        (Reply, (ALL, NEAR)),
        (Reply, (group, NEAR)),
        (Reply, ([0; 6], NEAR)),
        (Reply, (mac(0), NEAR)),
        (ArpOperation::Unknown(3), (MAC_A, NEAR)),
    ];
    let mut alone = Alone::with_router(Some(ROUTER));
    for (at, (operation, who)) in lies.into_iter().enumerate() {
        alone.resolve(NEAR);
        alone.resolve(FAR);
        let _ = alone.sent();
        alone.hear(operation, who, address(0));
        assert_eq!(alone.count().neighbors.refused, at as u64 + 1, "{who:?}");
        assert_eq!((alone.resolve(NEAR), alone.resolve(FAR)), (None, None));
        assert_eq!(alone.count().neighbors.known, 0, "{who:?}");
        assert!(alone.sent().is_empty());
    }
}

#[test]
fn malformed_frames_teach_nothing() {
    let mut alone = Alone::new();
    alone.resolve(NEAR);
    let sound = arp(mac(0), Reply, (MAC_A, NEAR), address(0));
    // Hardware type, protocol type, and both lengths.
    for at in 14..20 {
        let mut frame = sound.clone();
        frame[at] ^= 1;
        alone.host.handle(&frame, alone.now);
    }
    for len in 0..42 {
        alone.host.handle(&sound[..len], alone.now);
    }
    assert_eq!(alone.resolve(NEAR), None);
    alone.host.handle(&sound, alone.now);
    assert_eq!(alone.resolve(NEAR), Some(MAC_A));
}

#[test]
fn nobody_enters_unasked() {
    let mut alone = Alone::new();
    // An announcement, and an answer that nobody asked for.
    alone.hear(Request, (MAC_A, NEAR), NEAR);
    alone.hear(Reply, (MAC_A, NEAR), NEAR);
    assert_eq!(alone.count().neighbors.known, 0);
    // Who asks for us will talk to us.
    alone.hear(Request, (MAC_A, NEAR), address(0));
    assert_eq!(alone.resolve(NEAR), Some(MAC_A));
}

#[test]
fn a_known_neighbor_moves_only_after_a_second() {
    let mut alone = Alone::new();
    alone.resolve(NEAR);
    alone.hear(Reply, (MAC_A, NEAR), address(0));
    alone.now += SECOND - MS;
    alone.hear(Reply, (MAC_B, NEAR), address(0));
    assert_eq!(alone.resolve(NEAR), Some(MAC_A));
    alone.now += MS;
    // A failover announces itself.
    alone.hear(Request, (MAC_B, NEAR), NEAR);
    assert_eq!(alone.resolve(NEAR), Some(MAC_B));
    assert_eq!(alone.count().neighbors.changed, 2);
}

#[test]
fn a_flood_of_questions_does_not_push_out_neighbors_in_use() {
    let mut config = config(0);
    config.prefix = 8;
    let host = Host::new(config, std::sync::Arc::new(|| {})).unwrap();
    let mut alone = Alone {
        host,
        now: 100 * SECOND,
    };
    alone.resolve(NEAR);
    alone.hear(Reply, (MAC_A, NEAR), address(0));
    assert_eq!(alone.resolve(NEAR), Some(MAC_A));
    for asker in 0..10_000_u32 {
        let [_, b, c, d] = (0x0a01_0001 + asker).to_be_bytes();
        alone.now += MS;
        alone.hear(Request, (MAC_B, Ipv4Addr::new(10, b, c, d)), address(0));
        let _ = alone.sent();
    }
    assert_eq!(alone.count().neighbors.known, NEIGHBORS_MAX as u64);
    assert_eq!(alone.resolve(NEAR), Some(MAC_A));
    // And one we ask for finds room.
    let other = Ipv4Addr::new(10, 9, 9, 9);
    alone.resolve(other);
    alone.hear(Reply, (MAC_A, other), address(0));
    assert_eq!(alone.resolve(other), Some(MAC_A));
}

#[test]
fn hosts_find_each_other() {
    let mut world = World::new(2, 1);
    assert_eq!(world.hosts[0].resolve(address(1), world.now), None);
    world.pass(MS);
    assert_eq!(world.hosts[0].resolve(address(1), world.now), Some(mac(1)));
    // Who was asked for knows who asked.
    assert_eq!(world.hosts[1].resolve(address(0), world.now), Some(mac(0)));
    assert_eq!(world.frames, 2);
}
