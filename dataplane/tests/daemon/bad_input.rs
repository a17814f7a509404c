//! What strangers send: refused, counted, and nobody is disturbed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use genie_session::frame::DATA_MAGIC;

use crate::client::{Client, pattern};
use crate::process::Daemon;

/// The same bytes each time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[test]
fn noise_on_the_port_disturbs_nobody() {
    let daemon = Daemon::start(&["--handshake-seconds", "1"]);
    let mut client = Client::connect(&daemon.address);
    let kept = client.upload(&pattern(10_000));
    let connect = || {
        let socket = TcpStream::connect(&daemon.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(4)))
            .unwrap();
        socket
    };
    let mut strangers = Vec::new();
    let half_preface = b"PRI * HTTP/2.0\r\n".to_vec();
    let half_request = b"GET / HTTP/1.1\r\nHost: ".to_vec();
    let half_hello = [DATA_MAGIC.as_slice(), &[1, 0, 0, 0, 0]].concat();
    for bytes in [
        noise(1),
        noise(64),
        noise(100_000),
        vec![0; 1000],
        DATA_MAGIC[..3].to_vec(),
        half_hello,
        half_preface,
        half_request,
        Vec::new(),
    ] {
        let mut socket = connect();
        // It may close before all is written.
        let _ = socket.write_all(&bytes);
        strangers.push(socket);
    }
    // One that leaves in the middle.
    connect().write_all(&DATA_MAGIC).unwrap();
    let started = Instant::now();
    for mut socket in strangers {
        // Closed by the daemon, in time.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    daemon.wait_metric(
        "genie_connections_rejected_total",
        10.0,
        Duration::from_secs(2),
    );
    assert!(client.fetch(kept, 10_000) == pattern(10_000));
    assert_eq!(daemon.get("/healthz").0, "HTTP/1.1 200 OK");
}
