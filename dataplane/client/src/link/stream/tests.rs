//! A stream under TLS to a node in another thread.

use std::io::IoSlice;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use genie_tls::{TlsRead, TlsWrite};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

use super::*;
use crate::link::Link;

const LONG: Duration = Duration::from_secs(20);

/// The node's end.
struct Node {
    socket: TcpStream,
    read: TlsRead,
    write: TlsWrite,
}

impl Node {
    fn accept(listener: &TcpListener, config: ServerConfig) -> Self {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
        while connection.is_handshaking() || connection.wants_write() {
            connection.complete_io(&mut socket).unwrap();
        }
        assert_eq!(connection.alpn_protocol(), Some(&b"genie-data/1"[..]));
        let (read, write) = genie_tls::split(connection);
        Self {
            socket,
            read,
            write,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut parts = [IoSlice::new(bytes)];
        self.write
            .write(&mut self.socket, &mut parts, &mut |tick| Err(tick))
            .unwrap();
    }

    fn read_exact(&mut self, into: &mut [u8]) {
        let mut at = 0;
        while at < into.len() {
            let n = self.read.read(&mut self.socket, &mut into[at..]).unwrap();
            assert!(n > 0, "it ended at {at}");
            at += n;
        }
    }
}

/// A client's link and the node that it is to.
fn connected() -> (Link, Node) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    server.alpn_protocols = vec![b"genie-data/1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let address = Address::parse(&address).unwrap();
    thread::scope(|scope| {
        let node = scope.spawn(|| Node::accept(&listener, server));
        let tls = Tls {
            config: Arc::new(client),
        };
        let link = Link::connect(&address, Some(&tls), LONG).unwrap();
        (link, node.join().unwrap())
    })
}

#[test]
fn a_write_that_waits_ticks_and_loses_nothing() {
    let (link, mut node) = connected();
    // More than the kernel holds.
    let sent: Vec<u8> = (0..48 << 20).map(|i: u32| (i % 251) as u8).collect();
    let (begin, may_begin) = mpsc::channel();
    thread::scope(|scope| {
        let sent = &sent;
        scope.spawn(move || {
            let mut got = vec![0; sent.len()];
            may_begin.recv_timeout(LONG).expect("a tick");
            node.read_exact(&mut got);
            assert!(got == *sent);
        });
        let mut ticks = 0;
        let mut go_on = || {
            ticks += 1;
            if ticks == 2 {
                begin.send(()).unwrap();
            }
            Ok(())
        };
        let (header, body) = sent.split_at(24);
        link.write_all(&[header, &[], body], &mut go_on).unwrap();
        assert!(ticks >= 2, "{ticks}");
    });
}

#[test]
fn who_waits_can_stop() {
    let (link, node) = connected();
    let (stopped, is_stopped) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // The node leaves in the end, so that a write that does not stop fails.
            let _ = is_stopped.recv_timeout(LONG);
            drop(node);
        });
        let mut go_on = || Err(io::ErrorKind::Interrupted.into());
        let error = link.write_all(&[&vec![0; 48 << 20]], &mut go_on);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Interrupted);
        stopped.send(()).unwrap();
    });
}

#[test]
fn a_read_that_waits_ticks() {
    let (link, mut node) = connected();
    let mut bytes = [0; 8];
    assert!(link.read(&mut bytes).unwrap().is_none());
    node.write(b"news");
    assert_eq!(link.read(&mut bytes).unwrap(), Some(4));
    assert_eq!(&bytes[..4], b"news");
}

/// poll(2) knows the socket alone: without a look at what was taken from it already, an answer would
/// lie until something else comes.
#[test]
fn what_the_socket_does_not_tell_of_is_not_slept_on() {
    let (link, mut node) = connected();
    let mut bytes = [0; 4];
    // Session tickets.
    assert!(link.read(&mut bytes).unwrap().is_none());
    assert!(link.arm() && !link.wait_readable(Duration::ZERO));
    // So little comes in one piece.
    node.write(b"abcdef");
    while !link.wait_readable(LONG) {}
    assert_eq!(link.read(&mut bytes).unwrap(), Some(4));
    assert!(!link.arm(), "two bytes are here");
    assert!(link.wait_readable(Duration::ZERO));
    assert_eq!(link.read(&mut bytes).unwrap(), Some(2));
    assert!(link.arm() && !link.wait_readable(Duration::ZERO));
}

#[test]
fn the_end_is_an_error_announced_or_not() {
    for announced in [true, false] {
        let (link, mut node) = connected();
        node.write(b"last");
        if announced {
            node.write
                .finish(&mut node.socket, &mut |tick| Err(tick))
                .unwrap();
        }
        drop(node);
        let mut bytes = [0; 4];
        assert_eq!(link.read(&mut bytes).unwrap(), Some(4));
        for _ in 0..2 {
            let error = link.read(&mut bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
