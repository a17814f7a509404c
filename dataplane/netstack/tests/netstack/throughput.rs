//! What TCP between two hosts carries: `cargo test --release -p genie-netstack -- --ignored
//! --nocapture throughput`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sim::{PORT, World, config};

const BYTES: usize = 256 << 20;

#[test]
#[ignore = "a measurement: prints bytes a second of one core that does both ends"]
fn throughput_in_memory() {
    for mtu in [1500, 9000] {
        let configs = (0..2).map(|host| {
            let mut config = config(host);
            config.mtu = mtu;
            config
        });
        let mut world = World::of(configs, 1);
        world.hosts[1].listen(PORT, 1).unwrap();
        let (mut client, mut server) = world.pair();
        world.spawn(async move {
            let bytes = vec![7; 64 << 10];
            for _ in 0..BYTES / bytes.len() {
                client.write_all(&bytes).await.unwrap();
            }
        });
        let start = Instant::now();
        let read = world.start(async move {
            let mut bytes = vec![0; 64 << 10];
            for _ in 0..BYTES / bytes.len() {
                server.read_exact(&mut bytes).await.unwrap();
            }
        });
        world.result(Duration::from_secs(3600), &read);
        let took = start.elapsed();
        let rate = BYTES as f64 / took.as_secs_f64() / 1e6;
        println!("MTU {mtu}: {rate:.0} MB/s, both ends and the link on one core");
    }
}
