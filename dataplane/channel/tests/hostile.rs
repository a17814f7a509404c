//! A client that scribbles over everything it can reach.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use common::{LONG, MAPPED, SIZES, hello};
use genie_channel::attach::{answer_attach, read_request};
use genie_channel::{BULK_PART_MAX, ChannelError, Doorbell, FromApp, LoopHalf, ToApp};
use genie_shm::{Mapping, seqpacket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

struct Hostile {
    stream: UnixStream,
    /// The rings and the arena.
    memory: Vec<Mapping>,
    event: OwnedFd,
}

/// A client that speaks the socket's protocol and then does as it likes.
fn hostile(doorbell: &Doorbell) -> (Hostile, LoopHalf) {
    let (mut here, there) = UnixStream::pair().unwrap();
    here.write_all(&hello()).unwrap();
    // Said before anything was mapped, which is its own loss.
    here.write_all(&[MAPPED]).unwrap();
    read_request(&there, LONG).unwrap();
    let half = answer_attach(there, SIZES, doorbell, "").unwrap();
    let (_, mut files) = seqpacket::receive(here.as_fd(), &mut [0; 64]).unwrap();
    assert_eq!(files.len(), 4);
    here.read_exact(&mut [0; 3]).unwrap();
    let event = files.remove(2);
    let memory = files
        .into_iter()
        .map(|file| Mapping::from_peer(file).unwrap())
        .collect();
    let hostile = Hostile {
        stream: here,
        memory,
        event,
    };
    (hostile, half)
}

fn is_typed(error: &ChannelError) -> bool {
    matches!(error, ChannelError::Corrupt(_) | ChannelError::Closed)
}

/// Offsets of a ring's words and first frames, and any other.
fn places() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0_u64),
        Just(128),
        Just(256),
        Just(384),
        Just(512),
        4096_u64..4200,
        0_u64..(128 << 10),
    ]
}

fn values() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..64, (0_u64..20_000).prop_map(|n| n * 8), any::<u64>()]
}

proptest! {
    #[test]
    fn scribbling_over_the_rings_is_a_typed_error_or_nothing(
        steps in prop::collection::vec((0_usize..2, places(), values()), 1..60),
    ) {
        let doorbell = Doorbell::new().unwrap();
        let (client, mut half) = hostile(&doorbell);
        for (ring, place, value) in steps {
            let memory = &client.memory[ring];
            let place = place.min(memory.capacity() - 8);
            memory.write(place, &value.to_le_bytes()).unwrap();
            for _ in 0..4 {
                match half.try_next() {
                    Ok(None) => break,
                    Ok(Some(FromApp::Stream(bytes))) => prop_assert!(bytes.len() <= 32 << 10),
                    Ok(Some(FromApp::Send { place, len } | FromApp::Receive { place, len })) => {
                        prop_assert!(len <= BULK_PART_MAX && place + len <= SIZES.arena_bytes);
                    }
                    Ok(Some(_)) => {}
                    Err(error) => {
                        prop_assert!(is_typed(&error), "{}", error);
                        break;
                    }
                }
            }
            if let Err(error) = half.try_tell(ToApp::Stream(&[1; 1000])) {
                prop_assert!(is_typed(&error), "{}", error);
            }
            let _ = half.has_room(100);
            if half.arm() {
                half.disarm();
            }
        }
        // A loop that was damaged by one client serves the next.
        let (_other, mut other) = hostile(&doorbell);
        prop_assert_eq!(other.try_next().unwrap(), None);
    }
}

#[test]
fn a_client_that_floods_its_bells_blocks_nobody() {
    let doorbell = Doorbell::new().unwrap();
    let (client, mut half) = hostile(&doorbell);
    // The eventfd is made to block and filled to its limit.
    // SAFETY: plain calls on an open descriptor.
    unsafe {
        assert_eq!(libc::fcntl(client.event.as_raw_fd(), libc::F_SETFL, 0), 0);
    }
    nix::unistd::write(&client.event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    // The socket is made to block, too, and is never read.
    // SAFETY: as above.
    unsafe {
        assert_eq!(libc::fcntl(client.stream.as_raw_fd(), libc::F_SETFL, 0), 0);
    }
    let (done, waited) = std::sync::mpsc::channel();
    let bell = doorbell.clone();
    std::thread::spawn(move || {
        let asleep = 1_u32.to_le_bytes();
        for frames in 1..=10_000_u64 {
            // Always asleep, says the client, so it is rung each time.
            client.memory[1].write(256, &asleep).unwrap();
            assert!(half.try_tell(ToApp::Sent { place: 1 }).unwrap());
            assert_eq!(half.stats().wakes, frames);
            let tail = (frames * 24).to_le_bytes();
            client.memory[1].write(128, &tail).unwrap();
            bell.clear();
        }
        done.send((client, half)).unwrap();
    });
    let (client, half) = waited.recv_timeout(LONG).expect("the loop is not blocked");
    // Another client still wakes the loop.
    let (other, mut other_half) = hostile(&doorbell);
    doorbell.clear();
    assert!(other_half.arm());
    nix::unistd::write(&other.event, &1_u64.to_ne_bytes()).unwrap();
    let mut fds = [PollFd::new(doorbell.fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 1);
    doorbell.clear();
    // And the first one's death is seen though bytes of it lie unread.
    let mut stream = client.stream;
    stream.write_all(b"noise").unwrap();
    drop(stream);
    assert!(half.is_gone());
}
