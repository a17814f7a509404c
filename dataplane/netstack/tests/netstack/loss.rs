//! Bytes arrive whole and in order, whatever the link does.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sim::{Faults, MS, World, at, config, pattern, two};

const MIB: usize = 1 << 20;

/// Sends a MiB each way at the same time, and compares.
fn both_ways(mut world: World, faults: Faults) -> World {
    world.faults = faults;
    let (client, server) = world.pair();
    let mut results = Vec::new();
    for (stream, mine, other) in [(client, 1, 2), (server, 2, 1)] {
        let (mut reader, mut writer) = tokio::io::split(stream);
        world.spawn(async move {
            writer.write_all(&pattern(MIB, mine)).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        results.push(world.start(async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.unwrap();
            assert!(got == pattern(MIB, other), "other bytes than were sent");
        }));
    }
    for result in results {
        // smoltcp alone takes hours, or for ever.
        world.result(Duration::from_secs(300), &result);
    }
    world
}

#[test]
fn a_mebibyte_each_way_without_faults() {
    let world = both_ways(two(1), Faults::default());
    let count = world.hosts[0].counters();
    assert_eq!((count.tcp.connected, count.tcp.probes), (1, 0));
    // Nothing was sent twice: a frame of data for 1460 bytes, and acknowledgements.
    assert!(
        world.frames < 3 * (2 * MIB as u64 / 1460),
        "{} frames",
        world.frames
    );
}

#[test]
fn a_mebibyte_each_way_under_loss_and_reordering() {
    for seed in 0..10 {
        println!("seed {seed}");
        let faults = Faults {
            lost_percent: 10,
            repeated_percent: 5,
            jitter_us: 200,
        };
        both_ways(two(seed), faults);
    }
}

#[test]
fn a_mebibyte_each_way_in_jumbo_frames() {
    let configs = (0..2).map(|host| {
        let mut config = config(host);
        config.mtu = 9000;
        config
    });
    let mut world = World::of(configs, 3);
    world.hosts[1].listen(at(1).port(), 1).unwrap();
    let world = both_ways(world, Faults::default());
    assert!(
        world.frames < 3 * (2 * MIB as u64 / 8960),
        "{} frames",
        world.frames
    );
}

#[test]
fn damaged_segments_are_dropped() {
    let mut world = two(4);
    let (mut client, mut server) = world.pair();
    world.pass(MS);
    // The frame with the data is lost, and comes back with another byte before it is sent again.
    world.faults.lost_percent = 100;
    world.tap = Some(Vec::new());
    world.spawn(async move {
        client.write_all(b"unchanged").await.unwrap();
        std::future::pending::<()>().await;
    });
    world.pass(100 * MS);
    world.faults.lost_percent = 0;
    let sent = world.tap.take().unwrap();
    let data = |(host, frame): &(usize, Vec<u8>)| *host == 0 && frame.ends_with(b"unchanged");
    let mut damaged = sent.into_iter().find(data).unwrap().1;
    *damaged.last_mut().unwrap() ^= 0x40;
    world.inject(0, damaged);
    let got = world.start(async move {
        let mut got = [0; 9];
        server.read_exact(&mut got).await.unwrap();
        got
    });
    assert_eq!(&world.result(Duration::from_secs(5), &got), b"unchanged");
}
