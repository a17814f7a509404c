//! The socket of a gateway: what it answers, who dies, what hostile bytes get.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use common::{LONG, SIZES, Socket, attached, offer};
use genie_channel::attach::{
    ArenaCounts, AttachError, Info, Request, Status, answer_attach, answer_info, answer_relay,
    attach, info, read_request, refuse, relay,
};
use genie_channel::{ChannelError, Command, Doorbell, FromApp, FromLoop, ToApp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

#[test]
fn a_relay_is_a_pipe_from_its_first_byte() {
    let socket = Socket::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = socket.accept();
            assert_eq!(read_request(&stream, LONG).unwrap(), Request::Relay);
            // The node's first bytes may come right behind the answer.
            answer_relay(&stream).unwrap();
            stream.write_all(b"node speaks").unwrap();
            let mut heard = [0; 6];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"client");
        });
        let mut pipe = relay(&socket.path, LONG).unwrap();
        pipe.write_all(b"client").unwrap();
        let mut heard = [0; 11];
        pipe.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"node speaks");
    });
}

#[test]
fn a_gateway_tells_what_it_has() {
    let socket = Socket::new();
    let told = Info {
        transport: "tcp".to_owned(),
        reason: "no libdpdk:\ninstall dpdk".to_owned(),
        node: "10.0.0.7:7700".to_owned(),
        arenas: ArenaCounts {
            huge: 3,
            ordinary: 4,
            failed: 5,
        },
    };
    let heard = std::thread::scope(|scope| {
        let client = scope.spawn(|| info(&socket.path, LONG).unwrap());
        let stream = socket.accept();
        assert_eq!(read_request(&stream, LONG).unwrap(), Request::Info);
        answer_info(&stream, &told).unwrap();
        client.join().unwrap()
    });
    let reason = "no libdpdk: install dpdk".to_owned();
    assert_eq!(heard, Info { reason, ..told });
}

#[test]
fn a_refusal_says_whether_a_relay_would_do() {
    for status in [Status::Fallback, Status::Refused] {
        let socket = Socket::new();
        let why = "é".repeat(600);
        let error = std::thread::scope(|scope| {
            let client = scope.spawn(|| attach(&socket.path, &offer(), LONG).unwrap_err());
            let stream = socket.accept();
            read_request(&stream, LONG).unwrap();
            refuse(&stream, status, &why).unwrap();
            client.join().unwrap()
        });
        match (status, error) {
            (Status::Fallback, AttachError::Fallback(text))
            | (Status::Refused, AttachError::Refused(text)) => assert_eq!(text.len(), 512),
            (_, error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_answer_that_is_too_long_is_refused() {
    let socket = Socket::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = socket.accept();
            read_request(&stream, LONG).unwrap();
            let mut answer = vec![0];
            answer.extend(513_u16.to_le_bytes());
            answer.extend([b'x'; 513]);
            stream.write_all(&answer).unwrap();
        });
        let error = info(&socket.path, LONG).unwrap_err();
        assert!(matches!(error, AttachError::Malformed(_)), "{error}");
    });
}

#[test]
fn nobody_there_is_said_with_the_path() {
    let path = std::env::temp_dir().join("genie-channel-nobody.sock");
    let error = relay(&path, LONG).unwrap_err();
    assert!(matches!(error, AttachError::Unreachable { .. }));
    assert!(error.to_string().contains("genie-channel-nobody.sock"));
}

#[test]
fn a_silent_gateway_is_given_up_in_time() {
    let socket = Socket::new();
    let timeout = Duration::from_millis(50);
    let error = info(&socket.path, timeout).unwrap_err();
    assert!(matches!(error, AttachError::Io(_)), "{error}");
    // And one whose queue is full: nobody accepts.
    let crowd: Vec<_> = (0..200)
        .map_while(|_| info(&socket.path, Duration::from_millis(1)).err())
        .collect();
    assert_eq!(crowd.len(), 200);
}

#[test]
fn a_client_that_dies_is_seen_and_wakes_the_loop() {
    let doorbell = Doorbell::new().unwrap();
    let (mut app, mut half) = attached(&doorbell);
    assert!(!half.is_gone());
    assert!(half.arm());
    app.sender.try_stream(b"last words").unwrap();
    half.disarm();
    doorbell.clear();
    assert!(half.try_next().unwrap().is_some());
    assert!(half.arm());
    drop(app);
    let mut fds = [PollFd::new(doorbell.fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap(), 1);
    assert!(half.is_gone());
    assert!(matches!(half.try_next(), Err(ChannelError::Closed)));
}

#[test]
fn a_gateway_that_goes_ends_the_wait() {
    let doorbell = Doorbell::new().unwrap();
    let (mut app, half) = attached(&doorbell);
    let waiter = std::thread::spawn(move || {
        let result = app.receiver.next(LONG).map(|message| message.is_some());
        (result, app)
    });
    drop(half);
    let (result, app) = waiter.join().unwrap();
    assert!(matches!(result, Err(ChannelError::Closed)), "{result:?}");
    assert!(app.sender.is_gone());
}

/// Set in a child process: the socket, and what to do there.
const CHILD_SOCKET: &str = "GENIE_CHANNEL_TEST_SOCKET";

fn child(test: &str, socket: &Socket) -> Child {
    Process::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_SOCKET, &socket.path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn two_processes_exchange_a_stream_and_bulk() {
    if let Some(path) = std::env::var_os(CHILD_SOCKET) {
        let mut app = attach(path.as_ref(), &offer(), LONG).unwrap();
        let arena = app.arena.clone().unwrap();
        arena.write(4096, &[42; 1000]).unwrap();
        let (place, len) = (4096, 1000);
        assert!(app.sender.try_put(Command::Send { place, len }).unwrap());
        let sent = app.receiver.next(LONG).unwrap();
        assert_eq!(sent, Some(FromLoop::Sent { place }));
        assert_eq!(app.sender.try_stream(b"done").unwrap(), 4);
        // Killed here: it never ends anything in good order.
        let _ = app.receiver.next(LONG);
        std::process::abort();
    }
    let socket = Socket::new();
    let mut process = child("two_processes_exchange_a_stream_and_bulk", &socket);
    let doorbell = Doorbell::new().unwrap();
    let stream = socket.accept();
    read_request(&stream, LONG).unwrap();
    let mut half = answer_attach(stream, SIZES, &doorbell, "").unwrap();
    let wait = |half: &mut genie_channel::LoopHalf| {
        if half.arm() {
            let mut fds = [PollFd::new(doorbell.fd(), PollFlags::POLLIN)];
            let woken = poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap();
            assert_eq!(woken, 1, "the other process rings in time");
        }
        half.disarm();
        doorbell.clear();
    };
    let place = loop {
        match half.try_next().unwrap() {
            Some(FromApp::Send { place, .. }) => break place,
            Some(other) => panic!("{other:?}"),
            None => wait(&mut half),
        }
    };
    let mut bulk = [0; 1000];
    half.arena().unwrap().read(place, &mut bulk).unwrap();
    assert_eq!(bulk, [42; 1000]);
    assert!(half.try_tell(ToApp::Sent { place }).unwrap());
    loop {
        match half.try_next().unwrap() {
            Some(FromApp::Stream(bytes)) => break assert_eq!(bytes, b"done"),
            Some(other) => panic!("{other:?}"),
            None => wait(&mut half),
        }
    }
    assert!(!half.is_gone());
    assert!(half.arm());
    process.kill().unwrap();
    let mut fds = [PollFd::new(doorbell.fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap(), 1);
    assert!(half.is_gone(), "a killed process closes no ring");
    process.wait().unwrap();
}

#[test]
fn a_slow_request_is_cut_off() {
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(b"GENIEGW1").unwrap();
    let error = read_request(&here, Duration::from_millis(30)).unwrap_err();
    assert!(matches!(error, AttachError::Io(_)), "{error}");
}

#[test]
fn a_program_of_another_release_is_told_so() {
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(b"GENIEGW1\x01\x01\x00\x00more").unwrap();
    assert!(read_request(&here, LONG).is_err());
    drop(here);
    let mut answer = [0; 200];
    let len = there.read(&mut answer).unwrap();
    assert_eq!(answer[0], 2);
    let text = String::from_utf8_lossy(&answer[3..len]);
    assert!(text.contains("version 1"), "{text}");
    assert!(text.contains("of one release"), "{text}");
}

fn request_of(bytes: &[u8]) -> Result<Request, AttachError> {
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(bytes).unwrap();
    drop(there);
    read_request(&here, LONG)
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        kind in 0_u8..6,
        version in 0_u8..4,
        body_len in prop_oneof![Just(0_u16), Just(53), any::<u16>()],
    ) {
        prop_assert!(request_of(&bytes).is_err());
        let mut framed = b"GENIEGW1".to_vec();
        framed.extend([kind, version]);
        framed.extend(body_len.to_le_bytes());
        framed.extend(&bytes);
        if let Ok(request) = request_of(&framed) {
            prop_assert_eq!(version, 2);
            match request {
                Request::Relay => prop_assert_eq!((kind, body_len), (1, 0)),
                Request::RelayData => prop_assert_eq!((kind, body_len), (4, 0)),
                Request::Info => prop_assert_eq!((kind, body_len), (3, 0)),
                Request::Attach(offer) => {
                    prop_assert_eq!((kind, body_len), (2, 53));
                    prop_assert_eq!(&offer.encode()[..], &bytes[..53]);
                }
            }
        }
    }

    #[test]
    fn any_answer_is_understood_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let socket = Socket::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = socket.accept();
                read_request(&stream, LONG).unwrap();
                let _ = stream.write_all(&bytes);
            });
            // No files came, so there is no channel whatever the bytes say.
            assert!(attach(&socket.path, &offer(), LONG).is_err());
        });
    }
}
