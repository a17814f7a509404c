//! Clients that take their time.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as Client;
use std::sync::mpsc::channel;

use genie_channel::attach::info;

use super::*;
use crate::config::Settings;

/// More than a runtime has threads for what blocks.
const SLOW: usize = 64;
/// What no client here takes, unless it is never served.
const LIMIT: Duration = Duration::from_secs(30);
/// A gateway that ends nobody by the clock.
const ENDLESS: [Duration; 2] = [Duration::from_secs(3600); 2];

/// A gateway by TCP, on a runtime such as the daemon's with one thread for what blocks; it ends
/// with the value.
fn gateway(socket: &Path, patience: [Duration; 2]) -> tokio::runtime::Runtime {
    let text = format!("transport = \"tcp\"\ngateway = {socket:?}\nnode = \"127.0.0.1:1\"\n");
    let settings = Settings::parse(&text, Path::new("test.toml")).unwrap();
    let config = settings.over(Settings::defaults()).into_config().unwrap();
    let fallback = FallbackManager::start(&config, 0, None);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _here = runtime.enter();
    let serving = serve_patiently(config.gateway.unwrap(), fallback, patience).unwrap();
    runtime.spawn(serving);
    runtime
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("genie-{name}-{}.sock", std::process::id()))
}

/// What asks for what the gateway has.
fn request() -> Vec<u8> {
    [b"GENIEGW1".as_slice(), &[3, 2, 0, 0]].concat()
}

#[test]
fn slow_clients_keep_nobody_waiting() {
    let socket = socket("slow");
    let runtime = gateway(&socket, ENDLESS);
    let request = request();
    let mut slow: Vec<_> = (0..SLOW)
        .map(|at| {
            let mut client = Client::connect(&socket).unwrap();
            // Nothing, or some of it.
            client.write_all(&request[..at % request.len()]).unwrap();
            client
        })
        .collect();
    // A good one is served, and all the slow ones are still listened to.
    let (tell, told) = channel();
    let path = socket.clone();
    std::thread::spawn(move || tell.send(info(&path, LIMIT)));
    let info = told.recv_timeout(LIMIT).expect("it waits for the others");
    assert_eq!(info.unwrap().transport, "tcp");
    for (at, client) in slow.iter_mut().enumerate() {
        client.set_nonblocking(true).unwrap();
        let kind = client.read(&mut [0]).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock, "{at} was sent away");
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(&request[at % request.len()..]).unwrap();
        let mut answer = [1];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0], "{at} is served, too");
    }
    runtime.shutdown_background();
}

#[test]
fn a_client_that_does_not_go_on_is_sent_away() {
    let socket = socket("stuck");
    let patience = [Duration::from_millis(20); 2];
    let runtime = gateway(&socket, patience);
    for said in [&b""[..], b"G", b"GENIEGW1"] {
        let mut client = Client::connect(&socket).unwrap();
        client.write_all(said).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "{said:?}");
    }
    // One that talks nonsense is told so.
    let mut client = Client::connect(&socket).unwrap();
    client.write_all(b"GET / HTTP/1").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("no request to a gateway"), "{text}");
    runtime.shutdown_background();
}

#[test]
fn a_process_with_too_many_connections_is_told_so() {
    let socket = socket("many");
    let runtime = gateway(&socket, ENDLESS);
    let mut many: Vec<_> = (0..129)
        .map(|_| Client::connect(&socket).unwrap())
        .collect();
    let mut last = many.pop().unwrap();
    last.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answer = Vec::new();
    last.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.contains("has 128 connections to the gateway"),
        "{text}"
    );
    drop(many);
    // They are noticed to be gone.
    let began = std::time::Instant::now();
    while info(&socket, LIMIT).is_err() {
        assert!(began.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(10));
    }
    runtime.shutdown_background();
}
