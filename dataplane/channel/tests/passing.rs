//! What passes between the halves, in one process and over a socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::time::{Duration, Instant};

use common::{LONG, SIZES, attached};
use genie_channel::{
    AppHalf, ChannelError, Command, Doorbell, FromApp, FromLoop, LoopHalf, STREAM_MAX, ToApp, local,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn both(check: impl Fn(AppHalf, LoopHalf, &Doorbell)) {
    let doorbell = Doorbell::new().unwrap();
    let (app, half) = local(SIZES, doorbell.clone()).unwrap();
    check(app, half, &doorbell);
    let doorbell = Doorbell::new().unwrap();
    let (app, half) = attached(&doorbell);
    check(app, half, &doorbell);
}

fn rings(doorbell: &Doorbell) -> bool {
    let mut fds = [PollFd::new(doorbell.fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
}

#[test]
fn everything_passes_in_order() {
    both(|mut app, mut half, _| {
        let send = Command::Send {
            place: 64,
            len: 1 << 19,
        };
        app.arena.as_ref().unwrap().write(64, b"bulk").unwrap();
        assert_eq!(app.sender.try_stream(b"before").unwrap(), 6);
        assert!(app.sender.try_put(send).unwrap());
        assert!(app.sender.try_put(Command::Refuse { len: 9 }).unwrap());
        assert_eq!(app.sender.try_stream(b"after").unwrap(), 5);
        assert!(app.sender.try_put(Command::Finish).unwrap());
        assert_eq!(
            half.try_next().unwrap(),
            Some(FromApp::Stream(&b"before"[..]))
        );
        assert_eq!(half.try_next().unwrap(), Some(FromApp::from(send)));
        let mut bulk = [0; 4];
        half.arena().unwrap().read(64, &mut bulk).unwrap();
        assert_eq!(&bulk, b"bulk");
        let refuse = FromApp::Refuse { len: 9 };
        assert_eq!(half.try_next().unwrap(), Some(refuse));
        assert_eq!(
            half.try_next().unwrap(),
            Some(FromApp::Stream(&b"after"[..]))
        );
        let finish = FromApp::Finish;
        assert_eq!(half.try_next().unwrap(), Some(finish));
        assert_eq!(half.try_next().unwrap(), None);
        let told = [
            ToApp::Sent { place: 64 },
            ToApp::Stream(b"answer"),
            ToApp::BulkFailed {
                place: 64,
                code: 3,
                text: "the source changed",
            },
            ToApp::Ended {
                code: 0,
                text: "goodbye",
            },
        ];
        for message in told {
            assert!(half.try_tell(message).unwrap());
        }
        drop(half);
        for message in told {
            assert_eq!(app.receiver.next(LONG).unwrap(), Some(message));
        }
        assert!(matches!(app.receiver.next(LONG), Err(ChannelError::Closed)));
        assert!(matches!(
            app.sender.try_put(Command::Finish),
            Err(ChannelError::Closed)
        ));
    });
}

#[test]
fn nobody_is_woken_who_is_awake() {
    both(|mut app, mut half, doorbell| {
        for _ in 0..1000 {
            assert_eq!(app.sender.try_stream(b"to").unwrap(), 2);
            assert!(half.try_next().unwrap().is_some());
            assert!(half.try_tell(ToApp::Stream(b"fro")).unwrap());
            assert!(app.receiver.try_next().unwrap().is_some());
        }
        assert_eq!((app.sender.stats().wakes, half.stats().wakes), (0, 0));
        assert!(!rings(doorbell));

        assert!(half.arm());
        assert!(!rings(doorbell));
        assert_eq!(app.sender.try_stream(b"one").unwrap(), 3);
        assert_eq!(app.sender.try_stream(b"two").unwrap(), 3);
        assert_eq!(app.sender.stats().wakes, 1);
        assert!(rings(doorbell));
        half.disarm();
        doorbell.clear();
        assert!(!rings(doorbell));
        assert!(!half.arm(), "something is there");
        assert!(half.try_next().unwrap().is_some());
        assert!(half.try_next().unwrap().is_some());

        assert!(app.receiver.arm());
        assert!(half.try_tell(ToApp::Sent { place: 0 }).unwrap());
        assert!(half.try_tell(ToApp::Sent { place: 1 }).unwrap());
        assert_eq!(half.stats().wakes, 1);
        let mut fds = [PollFd::new(app.receiver.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 1);
        app.receiver.disarm();
        let mut fds = [PollFd::new(app.receiver.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 0);
        assert!(!app.receiver.arm());
        for place in 0..2 {
            let sent = FromLoop::Sent { place };
            assert_eq!(app.receiver.try_next().unwrap(), Some(sent));
        }
    });
}

#[test]
fn a_full_ring_pushes_back_and_wakes_when_there_is_room() {
    both(|mut app, mut half, doorbell| {
        let bytes = vec![5; 1 << 20];
        let mut taken = 0;
        loop {
            match app.sender.try_stream(&bytes[taken..]).unwrap() {
                0 => break,
                n => taken += n,
            }
        }
        assert!(taken > 64 << 10 && taken < 128 << 10, "{taken}");
        assert!(!app.sender.wait_room(Duration::from_millis(1)));
        let reader = std::thread::spawn(move || {
            let mut left = taken;
            while left > 0 {
                if let Some(FromApp::Stream(bytes)) = half.try_next().unwrap() {
                    assert!(bytes.len() <= STREAM_MAX && bytes.iter().all(|&byte| byte == 5));
                    left -= bytes.len();
                }
            }
            half
        });
        assert!(app.sender.wait_room(LONG));
        let mut half = reader.join().unwrap();

        let mut told = 0;
        while half.has_room(STREAM_MAX) {
            assert!(half.try_tell(ToApp::Stream(&bytes[..STREAM_MAX])).unwrap());
            told += 1;
        }
        assert!(!half.try_tell(ToApp::Stream(&bytes[..STREAM_MAX])).unwrap());
        doorbell.clear();
        assert!(half.arm());
        for _ in 0..told {
            assert!(app.receiver.try_next().unwrap().is_some());
        }
        assert!(rings(doorbell), "there is room again");
        half.disarm();
        doorbell.clear();
        assert!(half.try_tell(ToApp::Stream(&bytes[..STREAM_MAX])).unwrap());
        assert!(half.arm(), "nothing is left to be told");
    });
}

#[test]
fn a_stream_of_any_size_passes_between_threads_that_sleep() {
    both(|app, half, doorbell| {
        let total: usize = 8 << 20;
        let pattern = |at: usize| ((at * 31) >> 7) as u8;
        let AppHalf {
            mut sender,
            mut receiver,
            ..
        } = app;
        let doorbell = doorbell.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || echo(half, &doorbell));
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..total).map(pattern).collect();
                let mut at = 0;
                while at < total {
                    let end = total.min(at + 100_000);
                    match sender.try_stream(&bytes[at..end]).unwrap() {
                        0 => assert!(sender.wait_room(LONG)),
                        n => at += n,
                    }
                }
                while !sender.try_put(Command::Finish).unwrap() {
                    assert!(sender.wait_room(LONG));
                }
                // Dropping the sender would end the channel before the echo.
                sender
            });
            let mut at = 0;
            while at < total {
                let Some(FromLoop::Stream(bytes)) = receiver.next(LONG).unwrap() else {
                    panic!("not the stream");
                };
                for &byte in bytes {
                    assert_eq!(byte, pattern(at));
                    at += 1;
                }
            }
            let ended = receiver.next(LONG).unwrap();
            assert_eq!(ended, Some(FromLoop::Ended { code: 0, text: "" }));
        });
    });
}

/// A loop that sends the stream back, and sleeps when there is nothing to do.
fn echo(mut half: LoopHalf, doorbell: &Doorbell) {
    let mut held = Vec::new();
    let mut finished = false;
    loop {
        let mut worked = false;
        if held.is_empty() && !finished {
            match half.try_next().unwrap() {
                Some(FromApp::Stream(bytes)) => held = bytes.to_vec(),
                Some(_) => finished = true,
                None => {}
            }
            worked = !held.is_empty() || finished;
        }
        if !held.is_empty() && half.try_tell(ToApp::Stream(&held)).unwrap() {
            held.clear();
            worked = true;
        }
        if finished && half.try_tell(ToApp::Ended { code: 0, text: "" }).unwrap() {
            return;
        }
        // With something held, commands that wait do not matter: then only room does.
        if !worked && half.arm() {
            let mut fds = [PollFd::new(doorbell.fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(1000_u16)).unwrap();
            half.disarm();
            doorbell.clear();
        }
    }
}

#[test]
fn waiting_ends_at_its_time() {
    both(|mut app, _half, _| {
        let started = Instant::now();
        let wait = Duration::from_millis(20);
        assert_eq!(app.receiver.next(wait).unwrap(), None);
        assert!(started.elapsed() >= wait);
        assert_eq!(app.receiver.next(Duration::ZERO).unwrap(), None);
    });
}

#[test]
fn a_place_outside_the_arena_is_found_out() {
    both(|mut app, mut half, _| {
        for command in [
            Command::Send {
                place: (1 << 20) - 7,
                len: 8,
            },
            Command::Receive {
                place: u64::MAX,
                len: 8,
            },
        ] {
            assert!(app.sender.try_put(command).unwrap());
            assert!(matches!(half.try_next(), Err(ChannelError::Corrupt(_))));
        }
    });
}

#[test]
fn nothing_follows_the_end() {
    both(|mut app, mut half, _| {
        let receive = Command::Receive { place: 0, len: 8 };
        assert!(app.sender.try_put(Command::Finish).unwrap());
        assert!(app.sender.try_put(receive).unwrap());
        assert_eq!(app.sender.try_stream(b"more").unwrap(), 4);
        assert!(half.try_next().unwrap().is_some());
        assert!(half.try_next().unwrap().is_some(), "the peer goes on");
        assert!(matches!(half.try_next(), Err(ChannelError::Corrupt(_))));
    });
}

#[test]
fn closing_wakes_whoever_waits() {
    both(|app, mut half, _| {
        let closer = app.closer();
        let AppHalf {
            mut sender,
            mut receiver,
            ..
        } = app;
        assert_eq!(sender.try_stream(b"last").unwrap(), 4);
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(receiver.next(10 * LONG).map(|_| ())));
        let writer = std::thread::spawn(move || {
            let bytes = vec![0; 1 << 20];
            while sender.try_stream(&bytes).is_ok() {
                assert!(sender.wait_room(LONG));
            }
        });
        std::thread::sleep(Duration::from_millis(10));
        closer.close();
        let result = heard.recv_timeout(LONG).expect("the reader wakes");
        assert!(matches!(result, Err(ChannelError::Closed)));
        writer.join().unwrap();
        assert!(half.is_gone());
        assert_eq!(half.try_next().unwrap(), Some(FromApp::Stream(b"last")));
    });
}
