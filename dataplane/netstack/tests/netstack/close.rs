//! How connections end: by will, by a reset, by silence.

use std::io::ErrorKind;
use std::time::Duration;

use genie_netstack::{CONNECT_TIMEOUT, Host, HostError, PEER_TIMEOUT, PipeStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::sim::{MS, PORT, World, address, at, config, pattern, two};

const MINUTE: Duration = Duration::from_secs(60);

async fn read_error(mut stream: PipeStream) -> ErrorKind {
    stream.read_u8().await.unwrap_err().kind()
}

async fn write_error(mut stream: PipeStream) -> ErrorKind {
    loop {
        if let Err(error) = stream.write_all(&[7; 4096]).await {
            return error.kind();
        }
    }
}

#[test]
fn a_port_without_listener_refuses() {
    let mut world = World::new(2, 1);
    let stream = world.hosts[0].connect(at(1)).unwrap();
    let error = world.start(read_error(stream));
    assert_eq!(world.result(MINUTE, &error), ErrorKind::ConnectionRefused);
    let counters = world.hosts[0].counters().tcp;
    assert_eq!(
        (counters.reset, counters.open, counters.connected),
        (1, 0, 0)
    );
}

#[test]
fn nobody_at_the_address() {
    let mut world = World::new(1, 1);
    let start = world.now;
    let stream = world.hosts[0].connect(at(1)).unwrap();
    let error = world.start(write_error(stream));
    assert_eq!(world.result(MINUTE, &error), ErrorKind::HostUnreachable);
    assert!(world.now - start < CONNECT_TIMEOUT + 10 * MS);
    world.pass(MINUTE);
    let counters = world.hosts[0].counters();
    assert_eq!(counters.tcp.open, 0);
    // A second apart at most.
    assert!(counters.neighbors.requests <= 6, "{counters:?}");
}

#[test]
fn a_host_that_does_not_answer() {
    let mut world = World::new(2, 1);
    world.hosts[0].resolve(address(1), world.now);
    world.pass(10 * MS);
    world.alive[1] = false;
    let stream = world.hosts[0].connect(at(1)).unwrap();
    let error = world.start(read_error(stream));
    assert_eq!(world.result(MINUTE, &error), ErrorKind::TimedOut);
}

type Reader = Box<dyn AsyncRead + Unpin>;

/// Peers that vanish are found in time, whatever the connection was doing. `prepare` gives what to
/// read from, and what must live meanwhile.
fn vanishes(prepare: impl FnOnce(&mut World, PipeStream, PipeStream) -> (Reader, PipeStream)) {
    let mut world = two(1);
    let (client, server) = world.pair();
    let (mut reader, _server) = prepare(&mut world, client, server);
    world.alive[1] = false;
    let start = world.now;
    let error = world.start(async move { reader.read_u8().await.unwrap_err().kind() });
    assert_eq!(world.result(MINUTE, &error), ErrorKind::TimedOut);
    let took = world.now - start;
    assert!(took <= PEER_TIMEOUT + 10 * MS, "{took:?}");
    world.pass(Duration::from_secs(2));
    let counters = world.hosts[0].counters().tcp;
    assert_eq!((counters.timed_out, counters.open), (1, 0));
}

#[test]
fn a_peer_vanishes_while_idle() {
    vanishes(|world, client, server| {
        world.pass(MINUTE);
        (Box::new(client), server)
    });
}

#[test]
fn a_peer_vanishes_while_data_is_under_way() {
    vanishes(|world, mut client, server| {
        let written = world.start(async move {
            client.write_all(&[1; 30_000]).await.unwrap();
            client
        });
        (Box::new(world.result(MINUTE, &written)), server)
    });
}

#[test]
fn a_peer_vanishes_while_its_window_is_closed() {
    vanishes(|world, client, server| {
        let (reader, mut writer) = tokio::io::split(client);
        // More than both pipes and both sockets hold.
        let full = world.start(async move { writer.write_all(&pattern(1 << 20, 1)).await });
        world.pass(MINUTE);
        assert!(!full.is_there());
        (Box::new(reader), server)
    });
}

#[test]
fn a_slow_reader_is_no_dead_peer() {
    let mut world = two(1);
    let (mut client, mut server) = world.pair();
    let sent = world.start(async move { client.write_all(&pattern(1 << 20, 9)).await });
    // The window is closed for ten minutes: probes far apart, and yet the peer lives.
    world.pass(10 * MINUTE);
    assert!(!sent.is_there());
    let got = world.start(async move {
        let mut got = vec![0; 1 << 20];
        server.read_exact(&mut got).await.unwrap();
        got
    });
    assert!(world.result(MINUTE, &got) == pattern(1 << 20, 9));
    assert!(world.result(MINUTE, &sent).is_ok());
    assert_eq!(world.hosts[0].counters().tcp.timed_out, 0);
}

#[test]
fn idle_peers_stay_connected() {
    let mut world = two(1);
    let (mut client, mut server) = world.pair();
    world.pass(60 * MINUTE);
    let echoed = world.start(async move {
        client.write_all(b"still there").await.unwrap();
        let mut got = [0; 11];
        server.read_exact(&mut got).await.unwrap();
        got
    });
    assert_eq!(&world.result(MINUTE, &echoed), b"still there");
    let probes = world.hosts[0].counters().tcp.probes + world.hosts[1].counters().tcp.probes;
    assert!(
        (3000..=7300).contains(&probes),
        "{probes} probes in an hour"
    );
}

#[test]
fn half_closed_still_reads() {
    let mut world = two(1);
    let (mut client, mut server) = world.pair();
    let reply = world.start(async move {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let again = client.write_all(b"more").await.unwrap_err().kind();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).await.unwrap();
        (reply, again)
    });
    world.spawn(async move {
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(&pattern(300_000, 5)).await.unwrap();
    });
    let (reply, again) = world.result(MINUTE, &reply);
    assert!(reply == pattern(300_000, 5));
    assert_eq!(again, ErrorKind::BrokenPipe);
}

#[test]
fn what_was_written_before_the_drop_arrives() {
    let mut world = two(1);
    let (mut client, mut server) = world.pair();
    world.spawn(async move {
        client.write_all(&pattern(60_000, 5)).await.unwrap();
    });
    let got = world.start(async move {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        got
    });
    assert!(world.result(MINUTE, &got) == pattern(60_000, 5));
}

#[test]
fn a_late_reader_finds_everything_after_both_ended() {
    let mut world = two(1);
    let (mut client, mut server) = world.pair();
    // We end first, so ours is the socket that waits out its end, with bytes in it.
    let sent = world.start(async move {
        server.write_all(&pattern(120_000, 5)).await.unwrap();
        server.shutdown().await.unwrap();
        server
    });
    let ended = world.start(async move {
        client.shutdown().await.unwrap();
        client
    });
    let mut client = world.result(MINUTE, &ended);
    let server = world.result(MINUTE, &sent);
    drop(server);
    world.pass(MINUTE);
    assert_eq!(world.hosts[0].counters().tcp.open, 0);
    let got = world.start(async move {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    });
    assert!(world.result(MINUTE, &got) == pattern(120_000, 5));
}

#[test]
fn a_peer_that_writes_to_a_dropped_stream_is_reset() {
    let mut world = two(1);
    let (client, server) = world.pair();
    drop(server);
    world.pass(100 * MS);
    let error = world.start(write_error(client));
    assert_eq!(world.result(MINUTE, &error), ErrorKind::ConnectionReset);
    world.pass(MINUTE);
    assert_eq!(world.hosts[1].counters().tcp.open, 0);
}

#[test]
fn bytes_before_a_reset_can_be_read() {
    let mut world = two(1);
    let (mut client, mut server) = world.pair();
    let written = world.start(async move {
        server.write_all(b"last words").await.unwrap();
        server
    });
    let server = world.result(MINUTE, &written);
    world.pass(100 * MS);
    // A host that lost its memory resets what it doesn't know.
    drop(server);
    let wake = std::sync::Arc::new(|| {});
    world.hosts[1] = Host::new(config(1), wake).unwrap();
    let got = world.start(async move {
        client.write_all(b"hello?").await.unwrap();
        let mut got = Vec::new();
        let error = client.read_to_end(&mut got).await.unwrap_err().kind();
        (got, error, client.write_all(b"?").await.unwrap_err().kind())
    });
    let reset = ErrorKind::ConnectionReset;
    assert_eq!(
        world.result(MINUTE, &got),
        (b"last words".to_vec(), reset, reset)
    );
    assert_eq!(world.hosts[0].counters().tcp.reset, 1);
}

#[test]
fn streams_outlive_their_host() {
    let mut world = two(1);
    let (mut client, server) = world.pair();
    let waiting = world.start(async move { client.read_u8().await.unwrap_err().kind() });
    world.pass(MS);
    world.hosts.clear();
    world.run_until(MINUTE, |_| waiting.is_there());
    assert_eq!(world.result(MINUTE, &waiting), ErrorKind::ConnectionAborted);
    let error = world.start(write_error(server));
    assert_eq!(world.result(MINUTE, &error), ErrorKind::ConnectionAborted);
}

#[test]
fn connecting_nowhere_is_an_error() {
    let mut world = World::new(1, 1);
    let host = &mut world.hosts[0];
    let off_link = std::net::Ipv4Addr::new(192, 168, 7, 7);
    assert_eq!(
        host.connect(std::net::SocketAddrV4::new(off_link, PORT))
            .unwrap_err(),
        HostError::NoRoute { to: off_link }
    );
    for wrong in [
        "0.0.0.0:1",
        "10.0.0.255:1",
        "10.0.0.0:1",
        "224.0.0.1:1",
        "10.0.0.9:0",
    ] {
        let to = wrong.parse().unwrap();
        assert_eq!(host.connect(to).unwrap_err(), HostError::Peer { to });
    }
    let to = std::net::SocketAddrV4::new(address(0), PORT);
    assert_eq!(host.connect(to).unwrap_err(), HostError::Peer { to });
}
