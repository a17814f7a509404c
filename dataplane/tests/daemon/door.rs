//! Who takes what others need: idle, half and slow connections, sessions without a data connection.
//! Others get in all the same.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use genie_control_api::ErrorCode;

use crate::client::{Client, Control, pattern, request};
use crate::process::{Daemon, Folder};
use crate::tls;

/// How soon somebody else is served meanwhile.
const SOON: Duration = Duration::from_secs(1);
const FLOOD: usize = 1500;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A connection that comes from `source`.
fn from(source: Ipv4Addr, to: &str) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let to = to.parse().unwrap();
    let made = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    });
    let made = made.into_std().unwrap();
    made.set_nonblocking(false).unwrap();
    made
}

fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let took = started.elapsed();
    assert!(took < SOON, "{what} took {took:?}");
    done
}

/// An operator and a client are served.
fn others_get_in(daemon: &Daemon) {
    let health = soon("health", || daemon.get("/healthz").0);
    assert_eq!(health, "HTTP/1.1 200 OK");
    soon("metrics", || daemon.metric("genie_sessions"));
    let mut client = soon("a session", || Client::connect(&daemon.address));
    let kept = client.upload(&pattern(10_000));
    assert!(client.fetch(kept, 10_000) == pattern(10_000));
}

#[test]
fn a_flood_of_idle_connections_keeps_nobody_out() {
    let daemon = Daemon::start(&[]);
    for source in [ELSEWHERE, Ipv4Addr::LOCALHOST] {
        let flood: Vec<_> = (0..FLOOD).map(|_| from(source, &daemon.address)).collect();
        others_get_in(&daemon);
        drop(flood);
    }
}

#[test]
fn a_flood_of_half_handshakes_keeps_nobody_out() {
    let folder = Folder::new();
    let alice = tls::certificates(&folder, "alice");
    let daemon = tls::daemon(&folder, "alice", &[]);
    // A ClientHello that never ends.
    let half = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 40]].concat();
    let flood: Vec<_> = (0..FLOOD)
        .map(|_| {
            let mut socket = from(ELSEWHERE, &daemon.address);
            // It may have had to go already.
            let _ = socket.write_all(&half);
            socket
        })
        .collect();
    let mut client = soon("a session", || {
        Client::connect_with(&daemon.address, Some(&alice), request())
    });
    client.ping(1);
    drop(flood);
}

#[test]
fn slow_requests_keep_nobody_out_and_end() {
    let daemon = Daemon::start(&["--handshake-seconds", "1"]);
    let mut slow: Vec<_> = (0..FLOOD)
        .map(|n| {
            let mut socket = from(ELSEWHERE, &daemon.address);
            let begun: &[u8] = match n % 2 {
                0 => b"GET /metrics HTTP/1.1\r\nHost: ",
                _ => b"PRI * HTTP/2.0\r\n\r\n",
            };
            let _ = socket.write_all(begun);
            socket
        })
        .collect();
    others_get_in(&daemon);
    // A byte now and then is no request.
    let deadline = Instant::now() + Duration::from_secs(3);
    let last = slow.last_mut().unwrap();
    last.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    loop {
        assert!(Instant::now() < deadline, "it is served for ever");
        let said = last.write_all(b"x").and_then(|()| last.read(&mut [0; 64]));
        match said {
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
            Ok(_) => {}
        }
    }
}

#[test]
fn idle_http_connections_give_way() {
    let daemon = Daemon::start(&["--connections", "16", "--handshake-seconds", "60"]);
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let kept: Vec<_> = (0..100)
        .map(|_| {
            let mut socket = from(ELSEWHERE, &daemon.address);
            socket.write_all(request).unwrap();
            let mut answer = [0; 12];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            socket
        })
        .collect();
    others_get_in(&daemon);
    drop(kept);
}

#[test]
fn sessions_without_a_data_connection_hold_no_places() {
    let daemon = Daemon::start(&["--sessions", "2", "--lease-seconds", "60"]);
    let mut greedy = Control::connect(&daemon.address, None).unwrap();
    for _ in 0..100 {
        greedy.open(request()).unwrap();
    }
    let first = soon("a session", || Client::connect(&daemon.address));
    let second = soon("another", || Client::connect(&daemon.address));
    let refused = greedy.open(request()).unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::Busy));
    drop((first, second));
    // Those that waited are ended soon, whatever the lease.
    daemon.wait_metric("genie_sessions", 0.0, Duration::from_secs(8));
}

#[test]
fn a_place_that_was_taken_meanwhile_is_refused_at_the_data_connection() {
    let daemon = Daemon::start(&["--sessions", "1"]);
    let mut control = Control::connect(&daemon.address, None).unwrap();
    let late = control.open(request()).unwrap();
    let mut client = Client::connect(&daemon.address);
    let token = late.data_token.as_slice().try_into().unwrap();
    let hello = genie_session::frame::encode_hello(&token);
    let mut stream = crate::client::data(&daemon.address, None, &hello);
    let lost = crate::client::Frame::read(&mut *stream).unwrap();
    assert_eq!(lost.fault().code, genie_session::fault::Code::Busy);
    client.ping(1);
}
