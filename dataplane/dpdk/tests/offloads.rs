//! What is asked of a port, what it grants, and that the report is true.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use genie_dpdk::{
    Burst, Checksum, Granted, Null, Offloads, OpenPort, Port, PortConfig, PortError, Vdev,
};

fn null() -> Vdev {
    Vdev::Null(Null {
        packet_bytes: 64,
        sink_only: false,
    })
}

#[test]
fn a_port_grants_what_its_driver_has() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "granted", 1023, 2048);
    let granted = |vdev: Vdev, config: &PortConfig| {
        let opened = Port::open(&turn.eal, &vdev.into(), config, &pool).unwrap();
        opened.port.granted()
    };
    let all = PortConfig {
        rx_queues: 2,
        tx_queues: 2,
        rx_interrupts: true,
        offloads: Offloads {
            buffer_split: true,
            ..PortConfig::default().offloads
        },
        ..PortConfig::default()
    };
    // net_ring moves mbufs as they are; net_null spreads over queues what it makes up.
    let ring = Granted {
        rx_scatter: true,
        tx_segments: true,
        ..Granted::default()
    };
    let one = PortConfig {
        rx_queues: 1,
        tx_queues: 1,
        ..all.clone()
    };
    assert_eq!(granted(Vdev::Ring, &one), ring);
    let two = granted(null(), &all);
    assert!(two.rss && !two.tx_segments, "{two:?}");
    assert!(!two.rx_checksum && !two.tx_checksum && !two.buffer_split && !two.rx_interrupts);
    assert!(
        !granted(null(), &one).rss,
        "one queue has nothing to spread"
    );
    let none = PortConfig {
        offloads: Offloads::default(),
        rx_interrupts: false,
        ..all
    };
    assert_eq!(
        granted(null(), &none),
        Granted::default(),
        "nothing was asked for"
    );
}

#[test]
fn what_is_granted_works_and_what_is_not_is_not_claimed() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "honest", 1023, 256);
    let config = PortConfig {
        rx_interrupts: true,
        ..PortConfig::default()
    };
    let opened = Port::open(&turn.eal, &Vdev::Ring.into(), &config, &pool).unwrap();
    let OpenPort {
        port,
        mut rx,
        mut tx,
    } = opened;
    assert!(port.granted().tx_segments && port.granted().rx_scatter);
    let mut packet = pool.alloc().unwrap();
    packet.append(200).unwrap();
    let mut rest = pool.alloc().unwrap();
    rest.append(100).unwrap();
    packet.chain(rest).unwrap();
    let mut burst = Burst::new();
    burst.push(packet).unwrap();
    assert_eq!(tx[0].send(&mut burst), 1);
    assert_eq!(rx[0].receive(&mut burst), 1);
    let packet = burst.pop().unwrap();
    assert_eq!((packet.len(), packet.segment_count()), (300, 2));
    assert_eq!(packet.ip_checksum(), Checksum::Unknown);
    assert_eq!(packet.l4_checksum(), Checksum::Unknown);
    assert_eq!(packet.rss_hash(), None);
    // No interrupt: arming says so instead of handing out something that never wakes anybody.
    assert!(!rx[0].has_interrupt());
    assert!(rx[0].arm().unwrap().is_none());
    rx[0].disarm().unwrap();
}

#[test]
fn an_mtu_that_cannot_be_set_is_an_error() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "mtu", 1023, 2048);
    let opened = Port::open(&turn.eal, &Vdev::Ring.into(), &PortConfig::default(), &pool);
    let opened = opened.unwrap();
    let before = opened.port.mtu().unwrap();
    assert!(matches!(
        opened.port.set_mtu(1),
        Err(PortError::Mtu { asked: 1, .. })
    ));
    let error = opened.port.set_mtu(1400).unwrap_err();
    assert!(matches!(error, PortError::Refused { .. }), "{error}");
    assert_eq!(opened.port.mtu().unwrap(), before);
}
