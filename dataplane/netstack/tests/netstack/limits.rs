//! Everything has a bound: backlogs, connections, half-open ones; and nothing is left behind.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use genie_netstack::{HostError, PipeStream};
use smoltcp::wire::{ArpOperation, TcpControl, TcpRepr, TcpSeqNumber};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{arp, tcp};
use crate::sim::{MS, PORT, World, address, at, config, two};

const MINUTE: Duration = Duration::from_secs(60);

fn world(connections_max: usize, backlog: usize) -> World {
    let mut small = config(1);
    small.tcp_connections_max = connections_max;
    let mut world = World::of([config(0), small], 1);
    world.hosts[1].listen(PORT, backlog).unwrap();
    world
}

fn syn(port: u16) -> TcpRepr<'static> {
    TcpRepr {
        src_port: port,
        dst_port: PORT,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(i32::from(port)),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

#[test]
fn who_finds_the_backlog_full_gets_in_later() {
    let mut world = world(64, 2);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(world.hosts[0].connect(at(1)).unwrap());
    }
    world.pass(900 * MS);
    let count = world.hosts[1].counters().tcp;
    assert_eq!((count.accepted, count.over_backlog, count.open), (2, 1, 2));
    assert_eq!(world.hosts[0].counters().tcp.connected, 2);
    // One is accepted, and the third's next try finds room.
    let first = world.hosts[1].accept().unwrap();
    assert_eq!((first.1.ip(), first.2), (&address(0), PORT));
    assert_eq!(first.1, clients[0].local_addr());
    world.pass(5 * 1000 * MS);
    assert_eq!(world.hosts[0].counters().tcp.connected, 3);
    assert_eq!(world.hosts[1].accept().unwrap().1, clients[1].local_addr());
    assert_eq!(world.hosts[1].accept().unwrap().1, clients[2].local_addr());
    assert!(world.hosts[1].accept().is_none());
}

#[test]
fn the_limit_of_connections_holds() {
    let mut world = world(3, 16);
    let mut both = Vec::new();
    for _ in 0..3 {
        both.push(world.pair());
    }
    let mut fourth = world.hosts[0].connect(at(1)).unwrap();
    let error = world.start(async move { fourth.read_u8().await.unwrap_err().kind() });
    assert_eq!(world.result(MINUTE, &error), ErrorKind::ConnectionRefused);
    let full = world.hosts[1].connect(at(0)).unwrap_err();
    assert_eq!(full, HostError::Full { max: 3 });
    let count = world.hosts[1].counters().tcp;
    assert_eq!((count.over_limit, count.open), (2, 3));
    // One goes, and there is room at once, though its end is still waited out.
    let (client, server) = both.pop().unwrap();
    drop(server);
    world.pass(MS);
    drop(client);
    world.pass(100 * MS);
    assert_eq!(world.hosts[1].counters().tcp.open, 3);
    both.push(world.pair());
    assert_eq!(world.hosts[1].counters().tcp.open, 3);
}

#[test]
fn a_flood_of_handshakes_is_bounded_and_lets_honest_peers_in() {
    let mut world = world(64, 8);
    let stranger = ([2, 0, 0, 0, 9, 9], Ipv4Addr::new(10, 0, 0, 99));
    let introduction = arp([0xff; 6], ArpOperation::Request, stranger, address(1));
    world.inject(0, introduction);
    world.pass(MS);
    let addresses = (stranger.1, address(1));
    let client = world.hosts[0].connect(at(1)).unwrap();
    for port in 1..=5000 {
        world.hosts[1].handle(&tcp(1, stranger.0, addresses, &syn(port)), world.now);
        world.pass(MS);
        assert!(world.hosts[1].counters().tcp.open <= 8);
    }
    let server = world.accept(1);
    assert_eq!(server.peer_addr(), client.local_addr());
    let count = world.hosts[1].counters().tcp;
    assert!(count.over_backlog > 4500, "{count:?}");
    // And when it ends, nothing is left of it.
    world.pass(10 * 1000 * MS);
    assert_eq!(world.hosts[1].counters().tcp.open, 1);
}

#[test]
fn handshakes_that_do_not_end_are_given_up() {
    let mut world = world(64, 8);
    let stranger = ([2, 0, 0, 0, 9, 9], Ipv4Addr::new(10, 0, 0, 99));
    let addresses = (stranger.1, address(1));
    for port in 1..=8 {
        world.hosts[1].handle(&tcp(1, stranger.0, addresses, &syn(port)), world.now);
    }
    assert_eq!(world.hosts[1].counters().tcp.open, 8);
    // Repeated, it is the same handshake.
    world.hosts[1].handle(&tcp(1, stranger.0, addresses, &syn(8)), world.now);
    assert_eq!(world.hosts[1].counters().tcp.open, 8);
    world.pass(7 * 1000 * MS);
    let count = world.hosts[1].counters();
    assert_eq!((count.tcp.open, count.tcp.half_open_expired), (0, 8));
    // Its address never became known, and no more was kept than may.
    assert!(count.sent < 10, "{count:?}");
}

/// Opens and closes in every order that there is.
#[test]
fn many_connections_leave_nothing() {
    let mut world = world(64, 16);
    for round in 0..600 {
        let (client, server) = world.pair();
        let (mut first, mut second) = if round % 2 == 0 {
            (client, server)
        } else {
            (server, client)
        };
        let done = world.start(async move {
            if round % 3 == 0 {
                first.write_all(&[3; 5000]).await.unwrap();
            }
            if round % 5 < 2 {
                first.shutdown().await.unwrap();
                let mut all = Vec::new();
                let _ = second.read_to_end(&mut all).await;
            }
            if round % 7 < 3 {
                drop(second);
                drop(first);
            }
        });
        world.result(MINUTE, &done);
        if round % 11 == 0 {
            world.pass(20 * MS);
        }
    }
    world.pass(2 * MINUTE);
    for host in &world.hosts {
        let count = host.counters().tcp;
        assert_eq!(count.open, 0, "{count:?}");
        assert_eq!(count.accepted + count.connected, 600);
        assert_eq!(count.timed_out, 0);
        assert_eq!(host.timeout(world.now), None, "nothing to wait for");
    }
    assert_eq!(world.tasks(), 0);
}

#[test]
fn streams_that_nobody_accepts_end_with_their_peers() {
    let mut world = world(64, 16);
    let clients: Vec<PipeStream> = (0..10)
        .map(|_| world.hosts[0].connect(at(1)).unwrap())
        .collect();
    world.pass(100 * MS);
    assert_eq!(world.hosts[1].counters().tcp.accepted, 10);
    world.alive[0] = false;
    world.pass(10 * 1000 * MS);
    let count = world.hosts[1].counters().tcp;
    assert_eq!((count.open, count.timed_out), (0, 10));
    assert!(world.hosts[1].accept().is_none());
    drop(clients);
}

#[test]
fn a_dropped_connect_leaves_nothing() {
    let mut world = two(1);
    let stream = world.hosts[0].connect(at(1)).unwrap();
    drop(stream);
    world.pass(10 * 1000 * MS);
    assert_eq!(world.hosts[0].counters().tcp.open, 0);
    assert_eq!(world.hosts[1].counters().tcp.open, 0);
}

#[test]
fn peers_that_never_close_are_not_waited_for() {
    let mut world = two(1);
    let (client, server) = world.pair();
    drop(client);
    // The peer's application keeps its end, alive and silent.
    world.pass(10 * 1000 * MS);
    assert_eq!(world.hosts[0].counters().tcp.open, 0);
    drop(server);
}

#[test]
fn listening_has_rules() {
    let mut world = World::new(1, 1);
    let host = &mut world.hosts[0];
    host.listen(80, 1).unwrap();
    assert_eq!(host.listen(80, 1), Err(HostError::PortTaken { port: 80 }));
    for (port, backlog) in [(0, 1), (81, 0)] {
        assert_eq!(
            host.listen(port, backlog),
            Err(HostError::Listen { port, backlog })
        );
    }
    let refused = (100..200).find_map(|port| host.listen(port, 1).err());
    assert_eq!(refused, Some(HostError::Listeners));
}

#[test]
fn configurations_are_checked() {
    let wrong: [fn(&mut genie_netstack::HostConfig); 9] = [
        |config| config.mac = [0xff; 6],
        |config| config.mac = [0; 6],
        |config| config.prefix = 33,
        |config| config.address = Ipv4Addr::new(10, 0, 0, 255),
        |config| config.router = Some(Ipv4Addr::new(10, 0, 1, 1)),
        |config| config.router = Some(address(0)),
        |config| config.mtu = 100,
        |config| config.mtu = 100_000,
        |config| config.tcp_connections_max = 0,
    ];
    for (at, change) in wrong.into_iter().enumerate() {
        let mut config = config(0);
        change(&mut config);
        let host = genie_netstack::Host::new(config, std::sync::Arc::new(|| {}));
        assert!(host.is_err(), "change {at}");
    }
}
