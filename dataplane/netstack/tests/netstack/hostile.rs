//! Frames from an enemy: no panic, no growth, no loop without an end, and honest peers go on.

use std::time::Duration;

use genie_netstack::{Host, PipeStream};
use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::wire::{ArpOperation, IpProtocol, Ipv4Packet, TcpControl, TcpPacket, TcpRepr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{arp, ip, ping, tcp};
use crate::sim::{MS, PORT, World, address, at, config, mac, two};

const MINUTE: Duration = Duration::from_secs(60);

/// Takes all that a host wants to send; it must end.
fn drain(host: &mut Host, now: Duration) {
    let mut out = [0; 2000];
    for _ in 0..2000 {
        if host.poll_transmit(now, &mut out).is_none() {
            return;
        }
    }
    panic!("sends without end");
}

/// A host that listens, and knows the enemy.
fn victim() -> Host {
    let mut host = Host::new(config(0), std::sync::Arc::new(|| {})).unwrap();
    host.listen(PORT, 4).unwrap();
    let question = arp(
        [0xff; 6],
        ArpOperation::Request,
        (mac(1), address(1)),
        address(0),
    );
    host.handle(&question, MS);
    host
}

fn sound_frames() -> Vec<Vec<u8>> {
    let addresses = (address(1), address(0));
    let mut syn = segment(1, 2);
    syn.control = TcpControl::Syn;
    syn.ack_number = None;
    syn.max_seg_size = Some(1460);
    syn.window_scale = Some(7);
    syn.sack_permitted = true;
    vec![
        arp(
            mac(0),
            ArpOperation::Reply,
            (mac(1), address(1)),
            address(0),
        ),
        ping(0, mac(1), addresses, 1, b"some bytes"),
        tcp(0, mac(1), addresses, &syn),
        tcp(0, mac(1), addresses, &segment(5, 6)),
        ip(0, mac(1), addresses, IpProtocol::Tcp, &[0; 40]),
    ]
}

fn segment(seq: i32, ack: i32) -> TcpRepr<'static> {
    TcpRepr {
        src_port: 5555,
        dst_port: PORT,
        control: TcpControl::None,
        seq_number: smoltcp::wire::TcpSeqNumber(seq),
        ack_number: Some(smoltcp::wire::TcpSeqNumber(ack)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: b"payload",
    }
}

/// A segment of the enemy's, told from what the victim expects next.
#[derive(Clone, Debug)]
struct Forged {
    seq: i32,
    ack: Option<i32>,
    control: u8,
    window: u16,
    scale: Option<u8>,
    mss: Option<u16>,
    payload: usize,
    wait_ms: u64,
    /// The victim's application: 0 nothing, 1 writes, 2 reads, 3 shuts down.
    application: u8,
    drained: bool,
}

fn distance() -> impl Strategy<Value = i32> {
    prop_oneof![
        4 => Just(0),
        3 => -3..=3_i32,
        2 => -70_000..=70_000_i32,
        1 => any::<i32>(),
        1 => prop::sample::select(vec![65_534, 65_535, 65_536, i32::MAX, i32::MIN, 1460, 2920]),
    ]
}

fn forged() -> impl Strategy<Value = Forged> {
    (
        (distance(), prop::option::weighted(0.9, distance()), 0..7_u8),
        (
            any::<u16>(),
            prop::option::of(0..16_u8),
            prop::option::of(any::<u16>()),
        ),
        (
            prop_oneof![Just(0), 0..1400_usize],
            prop_oneof![Just(0), 0..50_u64, 0..3000_u64],
        ),
        (0..8_u8, any::<bool>()),
    )
        .prop_map(
            |(place, options, (payload, wait_ms), (application, drained))| Forged {
                seq: place.0,
                ack: place.1,
                control: place.2,
                window: options.0,
                scale: options.1,
                mss: options.2,
                payload,
                wait_ms,
                application,
                drained,
            },
        )
}

/// The enemy's end of a connection: it reads the victim's frames and forges its own.
struct Enemy {
    /// What the victim sends next, and what it expects, as far as was seen.
    seq: i32,
    ack: i32,
    ports: (u16, u16),
}

impl Enemy {
    fn see(&mut self, frame: &[u8]) {
        if frame[12..14] != [8, 0] || frame[23] != 6 {
            return;
        }
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
        self.ports = (tcp.dst_port(), tcp.src_port());
        self.seq = tcp.seq_number().0.wrapping_add(tcp.segment_len() as i32);
        if tcp.ack() {
            self.ack = tcp.ack_number().0;
        }
    }

    fn forge(&self, forged: &Forged) -> Vec<u8> {
        let payload = vec![forged.control; forged.payload];
        let mut segment = segment(
            self.ack.wrapping_add(forged.seq),
            self.seq.wrapping_add(forged.ack.unwrap_or(0)),
        );
        (segment.src_port, segment.dst_port) = self.ports;
        segment.control = match forged.control {
            0..=2 => TcpControl::None,
            3 => TcpControl::Psh,
            4 => TcpControl::Fin,
            5 => TcpControl::Syn,
            _ => TcpControl::Rst,
        };
        segment.ack_number = forged.ack.and(segment.ack_number);
        segment.window_len = forged.window;
        if segment.control == TcpControl::Syn {
            segment.window_scale = forged.scale;
            segment.max_seg_size = forged.mss;
        }
        segment.payload = &payload;
        tcp(0, mac(1), (address(1), address(0)), &segment)
    }
}

/// Takes the victim's frames; they must end.
fn spy(host: &mut Host, enemy: &mut Enemy, now: Duration) {
    let mut out = [0; 2000];
    for _ in 0..2000 {
        match host.poll_transmit(now, &mut out) {
            Some(len) => enemy.see(&out[..len]),
            None => return,
        }
    }
    panic!("sends without end");
}

/// The victim's application does something, once.
fn act(stream: &mut PipeStream, what: u8) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut bytes = [1; 3000];
    let mut once = std::pin::pin!(async {
        match what {
            1 => drop(stream.write(&bytes).await),
            2 => drop(stream.read(&mut bytes).await),
            3 => drop(stream.shutdown().await),
            _ => {}
        }
    });
    let _ = once.as_mut().poll(&mut context);
}

/// Plays `script` against a connection that the victim began or accepted.
fn attack(begins: bool, handshake: bool, script: &[Forged]) {
    let mut host = victim();
    let mut now = MS;
    let mut enemy = Enemy {
        seq: 0,
        ack: 0,
        ports: (PORT, 50_000),
    };
    let mut stream = begins.then(|| host.connect(at(1)).unwrap());
    if !begins {
        let mut syn = segment(100, 0);
        syn.control = TcpControl::Syn;
        syn.ack_number = None;
        syn.payload = &[];
        host.handle(&tcp(0, mac(1), (address(1), address(0)), &syn), now);
    }
    spy(&mut host, &mut enemy, now);
    if handshake {
        let mut next = segment(enemy.ack, enemy.seq);
        next.payload = &[];
        (next.src_port, next.dst_port) = enemy.ports;
        if begins {
            next.control = TcpControl::Syn;
        }
        host.handle(&tcp(0, mac(1), (address(1), address(0)), &next), now);
        spy(&mut host, &mut enemy, now);
        stream = stream.or_else(|| host.accept().map(|(stream, ..)| stream));
        assert!(stream.is_some());
    }
    for forged in script {
        now += forged.wait_ms as u32 * MS;
        host.handle(&enemy.forge(forged), now);
        if let Some(stream) = &mut stream {
            act(stream, forged.application);
        }
        if forged.drained {
            spy(&mut host, &mut enemy, now);
        }
        let counters = host.counters();
        assert!(counters.tcp.open <= 6, "{counters:?}");
        stream = stream.or_else(|| host.accept().map(|(stream, ..)| stream));
    }
    // The enemy falls silent, and all of it goes.
    drop(stream);
    for _ in 0..200 {
        now += 1000 * MS;
        spy(&mut host, &mut enemy, now);
        while host.accept().is_some() {}
    }
    assert_eq!(host.counters().tcp.open, 0);
}

/// 512 cases, or as many as PROPTEST_CASES says; nothing is written beside the sources.
fn config_of_cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|cases| cases.parse().ok()).unwrap_or(512),
        failure_persistence: None,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(config_of_cases())]

    #[test]
    fn garbage_does_nothing(frames in vec(vec(any::<u8>(), 0..200), 1..20)) {
        let mut host = victim();
        for (at, frame) in frames.iter().enumerate() {
            host.handle(frame, MS * at as u32);
            // The same behind a header that gets it in.
            for protocol in [0x0800_u16, 0x0806] {
                let header = [&mac(0)[..], &mac(1), &protocol.to_be_bytes(), frame].concat();
                host.handle(&header, MS * at as u32);
            }
            drain(&mut host, MS * at as u32);
        }
        prop_assert!(host.counters().tcp.open <= 4);
    }

    #[test]
    fn damaged_frames_do_nothing(
        changes in vec((0..5_usize, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..60)
    ) {
        let mut host = victim();
        let frames = sound_frames();
        for (at, (which, place, byte, cut)) in changes.iter().enumerate() {
            let mut frame = frames[*which].clone();
            let place = place.index(frame.len());
            frame[place] = *byte;
            if *cut {
                frame.truncate(place);
            }
            host.handle(&frame, MS * at as u32);
            drain(&mut host, MS * at as u32);
        }
        prop_assert!(host.counters().tcp.open <= 4);
    }

    #[test]
    fn a_peer_that_plays_foul_harms_itself(
        begins in any::<bool>(),
        handshake in prop::bool::weighted(0.8),
        script in vec(forged(), 1..60)
    ) {
        attack(begins, handshake, &script);
    }
}

/// A segment before our first one, to the port that we are about to use.
#[test]
fn a_guess_at_a_connection_that_was_not_begun_is_dropped() {
    let mut host = victim();
    let stream = host.connect(at(1)).unwrap();
    let mut syn = segment(1, 0);
    syn.src_port = PORT;
    syn.dst_port = stream.local_addr().port();
    syn.control = TcpControl::Syn;
    syn.ack_number = None;
    host.handle(&tcp(0, mac(1), (address(1), address(0)), &syn), MS);
    assert_eq!(host.counters().tcp.unexpected, 1);
    drain(&mut host, MS);
    // Nor do both begin at once.
    host.handle(&tcp(0, mac(1), (address(1), address(0)), &syn), MS);
    assert_eq!(host.counters().tcp.unexpected, 2);
    drain(&mut host, MS);
}

/// More than our window, all at once, before we could say how much of it is left.
#[test]
fn a_window_is_not_overrun() {
    let mut world: World = two(1);
    let (mut client, server) = world.pair();
    world.pass(10 * MS);
    world.tap = Some(Vec::new());
    let sent = world.start(async move {
        client.write_all(b"x").await.unwrap();
        client
    });
    let _client = world.result(MINUTE, &sent);
    world.pass(10 * MS);
    let tap = world.tap.take().unwrap();
    let (_, last) = tap
        .iter()
        .rfind(|(host, frame)| *host == 0 && frame[23] == 6)
        .unwrap();
    let packet = Ipv4Packet::new_checked(&last[14..]).unwrap();
    let data = TcpPacket::new_checked(packet.payload()).unwrap();
    let mut more = segment(data.seq_number().0.wrapping_add(1), data.ack_number().0);
    (more.src_port, more.dst_port) = (data.src_port(), data.dst_port());
    let payload = [9; 1400];
    more.payload = &payload;
    // Back to front, and far beyond the end.
    for place in (0..90).rev() {
        let mut one = more;
        one.seq_number = more.seq_number + place * 1400;
        let frame = tcp(1, mac(0), (address(0), address(1)), &one);
        world.hosts[1].handle(&frame, world.now);
    }
    world.pass(10 * MS);
    let read = world.start(async move {
        let mut server = server;
        let mut bytes = vec![0; 60_000];
        server.read_exact(&mut bytes).await.unwrap();
        bytes
    });
    let bytes = world.result(MINUTE, &read);
    assert!(bytes[0] == b'x' && bytes[1..].iter().all(|byte| *byte == 9));
}
