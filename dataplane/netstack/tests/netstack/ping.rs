//! ICMP echo.

use std::net::Ipv4Addr;

use smoltcp::wire::{ArpOperation, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet};

use crate::frames::{arp, ip, ping};
use crate::sim::{MS, World, address, mac};

const STRANGER: [u8; 6] = [2, 0, 0, 0, 9, 9];
const AT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);

/// Frames that host 0 sends now.
fn sent(world: &mut World) -> Vec<Vec<u8>> {
    let mut out = [0; 2000];
    let mut frames = Vec::new();
    while let Some(len) = world.hosts[0].poll_transmit(world.now, &mut out) {
        frames.push(out[..len].to_vec());
    }
    frames
}

fn introduced() -> World {
    let mut world = World::new(1, 1);
    let question = arp([0xff; 6], ArpOperation::Request, (STRANGER, AT), address(0));
    world.hosts[0].handle(&question, world.now);
    assert_eq!(sent(&mut world).len(), 1);
    world
}

#[test]
fn a_ping_is_answered() {
    let mut world = introduced();
    for (sequence, len) in [(1, 0), (2, 56), (3, 1472)] {
        let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
        let question = ping(0, STRANGER, (AT, address(0)), sequence, &data);
        world.hosts[0].handle(&question, world.now);
        let [answer] = &sent(&mut world)[..] else {
            panic!("one answer to one ping");
        };
        assert_eq!((&answer[..6], &answer[6..12]), (&STRANGER[..], &mac(0)[..]));
        let packet = Ipv4Packet::new_checked(&answer[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.src_addr(), packet.dst_addr()), (address(0), AT));
        let echo = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert_eq!(
            Icmpv4Repr::parse(&echo, &Default::default()).unwrap(),
            Icmpv4Repr::EchoReply {
                ident: 7,
                seq_no: sequence,
                data: &data
            }
        );
    }
    assert_eq!(world.hosts[0].counters().pings, 3);
}

#[test]
fn a_ping_from_an_unknown_host_waits_for_its_address() {
    let mut world = World::new(1, 1);
    let question = ping(0, STRANGER, (AT, address(0)), 1, b"abc");
    world.hosts[0].handle(&question, world.now);
    let [request] = &sent(&mut world)[..] else {
        panic!("a request for its address, nothing else");
    };
    assert_eq!(&request[..6], &[0xff; 6]);
    let answer = arp(mac(0), ArpOperation::Reply, (STRANGER, AT), address(0));
    world.hosts[0].handle(&answer, world.now + MS);
    let [answer] = &sent(&mut world)[..] else {
        panic!("the answer");
    };
    assert_eq!(&answer[..6], &STRANGER);
}

#[test]
fn what_no_honest_host_sends_is_not_answered() {
    let mut world = introduced();
    let us = address(0);
    let own = mac(0);
    let broadcast = Ipv4Addr::new(10, 0, 0, 255);
    let mut damaged = ping(0, STRANGER, (AT, us), 1, b"abc");
    damaged[40] ^= 1;
    let mut fragment = ping(0, STRANGER, (AT, us), 1, b"abc");
    fragment[20] = 0x20;
    let mut to_all = ping(0, STRANGER, (AT, us), 1, b"abc");
    to_all[..6].fill(0xff);
    let frames = [
        damaged,
        fragment,
        to_all,
        ping(0, own, (us, us), 1, b"land"),
        ping(0, STRANGER, (us, us), 1, b"abc"),
        ping(0, [1; 6], (AT, us), 1, b"from a group"),
        ping(0, STRANGER, (broadcast, us), 1, b"smurf"),
        ping(0, STRANGER, (Ipv4Addr::new(224, 0, 0, 1), us), 1, b"abc"),
        ping(0, STRANGER, (Ipv4Addr::UNSPECIFIED, us), 1, b"abc"),
        ping(0, STRANGER, (Ipv4Addr::LOCALHOST, us), 1, b"abc"),
        ping(0, STRANGER, (AT, broadcast), 1, b"abc"),
        ping(0, STRANGER, (AT, address(1)), 1, b"for another"),
        ping(1, STRANGER, (AT, us), 1, b"for another"),
        ip(0, STRANGER, (AT, us), IpProtocol::Udp, &[0; 30]),
        ip(0, STRANGER, (AT, us), IpProtocol::Icmp, &[0; 30]),
        ip(0, STRANGER, (AT, us), IpProtocol::Icmp, &[]),
    ];
    for (at, frame) in frames.iter().enumerate() {
        world.hosts[0].handle(frame, world.now);
        assert_eq!(sent(&mut world), Vec::<Vec<u8>>::new(), "frame {at}");
    }
    let count = world.hosts[0].counters();
    assert_eq!((count.fragments, count.bad_source), (1, 7));
    // Those to another address or kind; the damaged one was let through, and smoltcp saw it.
    assert_eq!((count.not_ours, count.malformed, count.pings), (7, 0, 1));
}

#[test]
fn pings_beyond_the_queue_are_dropped_and_counted() {
    let mut world = introduced();
    let question = ping(0, STRANGER, (AT, address(0)), 1, b"flood");
    for _ in 0..1000 {
        world.hosts[0].handle(&question, world.now);
    }
    let answers = sent(&mut world).len() as u64;
    let count = world.hosts[0].counters();
    assert!((32..=96).contains(&answers), "{answers}");
    assert_eq!(answers + count.queue_full, 1000);
}

#[test]
fn a_short_buffer_costs_the_frame_and_nothing_else() {
    let mut world = introduced();
    let question = ping(0, STRANGER, (AT, address(0)), 1, &[1; 500]);
    world.hosts[0].handle(&question, world.now);
    assert_eq!(world.hosts[0].poll_transmit(world.now, &mut [0; 100]), None);
    assert_eq!(world.hosts[0].counters().queue_full, 1);
    world.hosts[0].handle(&question, world.now);
    assert_eq!(sent(&mut world).len(), 1);
}
