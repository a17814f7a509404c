//! What applications do with streams, and what the loop costs when they do nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use genie_netstack::{PIPE_BYTES, PipeStream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::sim::{MS, PORT, World, at, pattern, two};

const MINUTE: Duration = Duration::from_secs(60);

fn needs_send<T: Send + Unpin + 'static>(value: T) -> T {
    value
}

#[test]
fn tokio_copies_it() {
    let mut world = two(1);
    let (client, server) = world.pair();
    // An echo.
    world.spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(needs_send(server));
        let copied = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        assert_eq!(copied, 500_000);
        writer.shutdown().await.unwrap();
    });
    let (mut reader, mut writer) = tokio::io::split(client);
    world.spawn(async move {
        let bytes = pattern(500_000, 3);
        tokio::io::copy(&mut &bytes[..], &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let got = world.start(async move {
        let mut got = Vec::new();
        tokio::io::copy(&mut reader, &mut got).await.unwrap();
        got
    });
    assert!(world.result(MINUTE, &got) == pattern(500_000, 3));
}

/// One connection, many requests: head in lines, body of a given length, both written in parts.
#[test]
fn requests_and_responses_in_turn() {
    let mut world = two(1);
    let (client, server) = world.pair();
    world.spawn(async move {
        let mut stream = BufReader::new(server);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap() == 0 {
                break;
            }
            let len: usize = line
                .trim()
                .strip_prefix("length ")
                .unwrap()
                .parse()
                .unwrap();
            let mut body = vec![0; len];
            stream.read_exact(&mut body).await.unwrap();
            body.reverse();
            let head = format!("length {len}\n");
            let parts = [head.as_bytes(), &body].map(std::io::IoSlice::new);
            let written = stream.get_mut().write_vectored(&parts).await.unwrap();
            let rest = written.saturating_sub(head.len());
            stream.write_all(&body[rest..]).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let frames_before = world.frames;
    let requests = world.start(async move {
        let mut stream = BufReader::new(client);
        for round in 0..200 {
            let body = pattern(round * 7 % 3000, round as u64);
            stream
                .write_all(format!("length {}\n", body.len()).as_bytes())
                .await
                .unwrap();
            stream.write_all(&body).await.unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("length {}\n", body.len()));
            let mut answer = vec![0; body.len()];
            stream.read_exact(&mut answer).await.unwrap();
            answer.reverse();
            assert!(answer == body);
        }
    });
    world.result(MINUTE, &requests);
    let frames = world.frames - frames_before;
    assert!(frames < 200 * 10, "{frames} frames for 200 requests");
}

#[test]
fn writing_and_reading_wait_for_the_handshake() {
    let mut world = two(1);
    let mut client = world.hosts[0].connect(at(1)).unwrap();
    assert_eq!(
        (client.peer_addr(), client.local_addr().port() >= 49_152),
        (at(1), true)
    );
    let echoed = world.start(async move {
        client.write_all(b"early").await.unwrap();
        let mut got = [0; 5];
        client.read_exact(&mut got).await.unwrap();
        got
    });
    let mut server = world.accept(1);
    world.spawn(async move {
        let mut got = [0; 5];
        server.read_exact(&mut got).await.unwrap();
        server.write_all(&got).await.unwrap();
    });
    assert_eq!(&world.result(MINUTE, &echoed), b"early");
}

#[test]
fn what_waits_is_bounded() {
    let mut world = two(1);
    let (mut client, _server) = world.pair();
    let written = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&written);
    world.spawn(async move {
        loop {
            count.set(count.get() + client.write(&[1; 1000]).await.unwrap());
        }
    });
    world.pass(MINUTE);
    // Two pipes, two sockets.
    let most = 4 * PIPE_BYTES;
    assert!(
        (most - PIPE_BYTES / 4..=most).contains(&written.get()),
        "{}",
        written.get()
    );
}

/// Wakes and timers of a host whose connections are idle.
#[test]
fn idle_connections_cost_next_to_nothing() {
    let mut world = two(1);
    let mut all = Vec::new();
    for _ in 0..16 {
        all.push(world.pair());
    }
    world.pass(100 * MS);
    let wakes = |world: &World| world.wakes[1].load(Ordering::SeqCst);
    let (before, frames) = (wakes(&world), world.frames);
    world.pass(MINUTE);
    assert_eq!(wakes(&world), before);
    // A question and an answer for each connection and second.
    let frames = world.frames - frames;
    assert!(frames <= 16 * 60 * 2 + 20, "{frames}");
}

#[test]
fn one_wake_for_many_writes() {
    let mut world = two(1);
    let (mut client, _server) = world.pair();
    let wakes = world.wakes[0].load(Ordering::SeqCst);
    let written = world.start(async move {
        for _ in 0..100 {
            client.write_all(b"x").await.unwrap();
        }
        client
    });
    let _client: PipeStream = world.result(MINUTE, &written);
    assert_eq!(world.wakes[0].load(Ordering::SeqCst), wakes + 1);
}

#[test]
fn many_streams_at_once_are_all_served() {
    let mut world = World::new(5, 1);
    world.hosts[0].listen(PORT, 64).unwrap();
    let mut results = Vec::new();
    for client in 1..5 {
        for stream in 0..8 {
            let mut stream_end = world.hosts[client].connect(at(0)).unwrap();
            let seed = (client * 100 + stream) as u64;
            results.push((
                seed,
                world.start(async move {
                    stream_end.write_all(&pattern(100_000, seed)).await.unwrap();
                    stream_end.shutdown().await.unwrap();
                    let mut back = Vec::new();
                    stream_end.read_to_end(&mut back).await.unwrap();
                    back
                }),
            ));
        }
    }
    for _ in 0..32 {
        let server = world.accept(0);
        world.spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(server);
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
    }
    for (seed, result) in results {
        assert!(world.result(MINUTE, &result) == pattern(100_000, seed));
    }
}
