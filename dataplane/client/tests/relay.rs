//! What a gateway that has fallen back still does: pipes to the node's port.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Gateway, LONG, TOKEN, transport};
use genie_channel::attach::{Info, Request, Status, answer_info, answer_relay, refuse};
use genie_client::control::{self, ControlError};
use genie_client::handshake::handshake;
use genie_client::link::Link;
use genie_control_api::v1;
use genie_control_api::v1::control_server::{Control, ControlServer};
use genie_session::frame::{HELLO_BYTES, Header, Kind, decode_hello};

/// Answers as a node does on a data connection.
fn welcome(stream: &mut (impl Read + Write)) {
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(decode_hello(&hello).unwrap(), TOKEN);
    let welcome = Header::new(Kind::Welcome, 0, 0).encode();
    stream.write_all(&welcome).unwrap();
}

#[test]
fn a_gateway_without_dpdk_passes_the_tcp_protocol_on() {
    let gateway = Gateway::new();
    std::thread::scope(|scope| {
        let address = gateway.address();
        let client = scope.spawn(move || {
            let link = Link::open(&address, None, Some(&transport()), LONG).unwrap();
            handshake(&link, &TOKEN, LONG).unwrap().unwrap();
            assert_eq!(link.transport(), ("tcp", "no libdpdk here"));
            assert!(!link.takes_apart(1 << 30));
            let header = Header::new(Kind::Bulk, 1, 1 << 20).with_payload(3).encode();
            let written = link.write_frame(&header, b"rec", &[6; 1 << 20], &mut || Ok(()));
            written.unwrap();
        });
        let (stream, _) = gateway.accept();
        refuse(&stream, Status::Fallback, "no libdpdk here").unwrap();
        let (mut stream, request) = gateway.accept();
        assert_eq!(request, Request::RelayData);
        answer_relay(&stream).unwrap();
        welcome(&mut stream);
        let mut frame = vec![0; 24 + 3 + (1 << 20)];
        stream.read_exact(&mut frame).unwrap();
        assert_eq!(&frame[24..27], b"rec");
        assert!(frame[27..].iter().all(|&byte| byte == 6));
        client.join().unwrap();
    });
}

#[test]
fn a_node_without_the_transport_is_reached_by_a_pipe() {
    for (transport, wanted) in [
        ("tcp", "the cable is out"),
        ("dpdk", "the node offers no other transport"),
    ] {
        let gateway = Gateway::new();
        std::thread::scope(|scope| {
            let address = gateway.address();
            let client = scope.spawn(move || {
                let link = Link::open(&address, None, None, LONG).unwrap();
                handshake(&link, &TOKEN, LONG).unwrap().unwrap();
                assert_eq!(link.transport(), ("tcp", wanted));
            });
            let (stream, request) = gateway.accept();
            assert_eq!(request, Request::Info);
            let info = Info {
                transport: transport.to_owned(),
                reason: "the cable is out".to_owned(),
                ..Info::default()
            };
            answer_info(&stream, &info).unwrap();
            let (mut stream, _) = gateway.accept();
            answer_relay(&stream).unwrap();
            welcome(&mut stream);
            client.join().unwrap();
        });
    }
}

#[test]
fn a_refusal_and_an_impossible_offer_are_errors() {
    let gateway = Gateway::new();
    std::thread::scope(|scope| {
        let address = gateway.address();
        let client = scope.spawn(move || {
            let error = Link::open(&address, None, Some(&transport()), LONG).map(|_| ());
            error.unwrap_err().to_string()
        });
        let (stream, _) = gateway.accept();
        refuse(&stream, Status::Refused, "this user may not").unwrap();
        let error = client.join().unwrap();
        assert_eq!(error, "the gateway refused: this user may not");
    });
    for bad in [
        v1::Transport {
            secret: vec![1; 31],
            ..transport()
        },
        v1::Transport {
            address: "node7:7700".to_owned(),
            ..transport()
        },
        v1::Transport {
            mtu_max: 1 << 20,
            ..transport()
        },
    ] {
        let error = Link::open(&gateway.address(), None, Some(&bad), LONG).map(|_| ());
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("the node offers"), "{text}");
        assert!(!text.contains("1, 1, 1"), "{text}");
    }
}

#[derive(Default)]
struct Node;

#[tonic::async_trait]
impl Control for Node {
    async fn open_session(
        &self,
        _: tonic::Request<v1::OpenSessionRequest>,
    ) -> Result<tonic::Response<v1::OpenSessionReply>, tonic::Status> {
        Err(tonic::Status::unavailable("not here"))
    }

    async fn submit_segment(
        &self,
        _: tonic::Request<v1::SubmitSegmentRequest>,
    ) -> Result<tonic::Response<v1::SubmitSegmentReply>, tonic::Status> {
        Err(tonic::Status::unavailable("not here"))
    }

    async fn close_session(
        &self,
        _: tonic::Request<v1::CloseSessionRequest>,
    ) -> Result<tonic::Response<v1::CloseSessionReply>, tonic::Status> {
        Err(tonic::Status::unavailable("not here"))
    }

    async fn status(
        &self,
        _: tonic::Request<v1::StatusRequest>,
    ) -> Result<tonic::Response<v1::StatusReply>, tonic::Status> {
        Ok(tonic::Response::new(v1::StatusReply {
            node_version: "behind a gateway".to_owned(),
            ..v1::StatusReply::default()
        }))
    }
}

/// Passes bytes on in both directions until the client is done.
fn pipe(client: &UnixStream, node: &TcpStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut &*client, &mut &*node);
            let _ = node.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut &*node, &mut &*client);
        let _ = client.shutdown(Shutdown::Both);
    });
}

#[test]
fn the_control_channel_passes_through_a_gateway() {
    let gateway = Gateway::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap();
    drop(listener);
    let serving = runtime.spawn(
        tonic::transport::Server::builder()
            .add_service(ControlServer::new(Node))
            .serve(port),
    );
    let node = loop {
        match TcpStream::connect(port) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    std::thread::scope(|scope| {
        let address = gateway.address();
        let client = scope.spawn(move || control::status(&address, None, LONG).unwrap());
        let (stream, request) = gateway.accept();
        assert_eq!(request, Request::Relay);
        stream.set_read_timeout(None).unwrap();
        stream.set_write_timeout(None).unwrap();
        answer_relay(&stream).unwrap();
        stream.set_write_timeout(None).unwrap();
        pipe(&stream, &node);
        assert_eq!(client.join().unwrap().node_version, "behind a gateway");
    });
    serving.abort();
}

#[test]
fn a_gateway_that_is_not_there_is_named() {
    let gateway = Gateway::new();
    let address = gateway.address();
    drop(gateway);
    let Err(ControlError::Unreachable(why)) = control::status(&address, None, LONG) else {
        panic!("nobody is there");
    };
    assert!(why.contains("genie-dataplane --gateway"), "{why}");
    let error = Link::connect(&address, None, LONG).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(".sock"), "{error}");
}
