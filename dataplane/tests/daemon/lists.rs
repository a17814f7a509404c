//! A list of nodes of which one does not fit: it is named, and the others keep nothing of it.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use genie_client::address::{Address, Tls};
use genie_client::control::ControlError;
use genie_client::opening::{self, OpenError, Why};
use genie_control_api::v1::control_server::{Control as Service, ControlServer};
use genie_control_api::{ErrorCode, v1};
use genie_controlplane::negotiate::negotiate;
use genie_controlplane::node::Capabilities;
use genie_session::frame::PROTOCOL_VERSION;
use tokio::sync::oneshot;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};

use crate::client::{Certificates, Control, request};
use crate::fake;
use crate::process::{Daemon, Folder};
use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A node of the next release.
struct Newer;

#[async_trait]
impl Service for Newer {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionReply>, Status> {
        let node = Capabilities {
            node_version: "9.0.0".into(),
            ..Capabilities::default()
        };
        let refusal = negotiate(request.get_ref(), &node, PROTOCOL_VERSION + 1).unwrap_err();
        Err(refusal.code().status(refusal.to_string()))
    }

    async fn submit_segment(
        &self,
        _: Request<v1::SubmitSegmentRequest>,
    ) -> Result<Response<v1::SubmitSegmentReply>, Status> {
        Err(Status::unimplemented("it has no session"))
    }

    async fn close_session(
        &self,
        _: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionReply>, Status> {
        Err(Status::unimplemented("it has no session"))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// [`Newer`] on a port of its own, until it is dropped.
struct Serving {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn start() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                bound.send(incoming.local_addr().unwrap()).unwrap();
                let ended = async move { drop(stopped.await) };
                tonic::transport::Server::builder()
                    .add_service(ControlServer::new(Newer))
                    .serve_with_incoming_shutdown(incoming, ended)
                    .await
                    .unwrap();
            });
        });
        Self {
            address: address.recv().unwrap().to_string(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a node says of itself.
fn status(node: &Daemon, shown: Option<&Certificates>) -> v1::StatusReply {
    Control::connect(&node.address, shown).unwrap().status()
}

/// What opening nodes fails with, where `wrong` is to blame; those of `right` keep nothing of it.
fn refused(right: [&Daemon; 2], wrong: &str, shown: Option<&Certificates>) -> OpenError {
    let tls = shown.map(files);
    let nodes = [&right[0].address, wrong, &right[1].address];
    let nodes = nodes.map(|node| Address::parse(node).unwrap());
    let Err(error) = opening::open(&nodes, tls.as_ref(), &request(), TIMEOUT) else {
        panic!("{wrong} let it in");
    };
    assert_eq!(error.address, nodes[1]);
    for node in right {
        let deadline = Instant::now() + Duration::from_secs(2);
        let counters = loop {
            let status = status(node, shown);
            if status.sessions.is_empty() {
                break status.counters.unwrap();
            }
            assert!(Instant::now() < deadline, "{:?}", status.sessions);
        };
        assert_eq!((counters.sessions_opened, counters.sessions_lost), (1, 0));
        assert_eq!(counters.executors_died, 0);
    }
    // Nothing of it is in the way of who comes next.
    let [first, _, last] = nodes;
    let opened = opening::open(&[first, last], tls.as_ref(), &request(), TIMEOUT);
    let opened = opened.map(|all| all.len()).map_err(|e| e.why.to_string());
    assert_eq!(opened, Ok(2));
    error
}

/// What a node in the midst of the list says.
fn refusal(wrong: &str) -> (Option<ErrorCode>, String) {
    let right = [Daemon::start(&[]), Daemon::start(&[])];
    let error = refused([&right[0], &right[1]], wrong, None);
    match error.why {
        Why::Control(ControlError::Refused { code, message }) => (code, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_torch() {
    let wrong = Daemon::claiming("2.9.1+cpu", fake::SCHEMAS, &[]);
    let (code, said) = refusal(&wrong.address);
    assert_eq!(code, Some(ErrorCode::TorchMismatch));
    assert!(said.contains("2.9.1") && said.contains("2.11.0"), "{said}");
}

#[test]
fn other_operators() {
    let wrong = Daemon::claiming(fake::TORCH, 5, &[]);
    let (code, said) = refusal(&wrong.address);
    assert_eq!(code, Some(ErrorCode::SchemaMismatch));
    assert!(said.contains("0000000000000005"), "{said}");
}

#[test]
fn another_version() {
    let wrong = Serving::start();
    let (code, said) = refusal(&wrong.address);
    assert_eq!(code, Some(ErrorCode::VersionMismatch));
    assert!(said.contains("9.0.0"), "{said}");
}

fn files(shown: &Certificates) -> Tls {
    let (cert, key) = shown.identity.as_ref().unwrap();
    Tls::from_files(Some(&shown.ca), Some(cert), Some(key))
        .unwrap()
        .unwrap()
}

#[test]
fn another_tenants_certificate() {
    let folder = Folder::new();
    let alice = tls::certificates(&folder, "alice");
    let mallory = tls::certificates(&folder, "mallory");
    let right = [(); 2].map(|()| tls::daemon(&folder, "alice", &[]));
    // Neither takes the other for what it should be.
    let wrong = tls::daemon(&folder, "mallory", &[]);
    let error = refused([&right[0], &right[1]], &wrong.address, Some(&alice));
    let Why::Control(ControlError::Untrusted(said)) = &error.why else {
        panic!("{error:?}");
    };
    assert!(said.contains("its certificate is refused"), "{said}");
    let seen = status(&wrong, Some(&mallory)).counters.unwrap();
    assert_eq!(seen.sessions_opened, 0);
}

#[test]
fn a_node_that_lets_in_only_another_tenants_clients() {
    let folder = Folder::new();
    let alice = tls::certificates(&folder, "alice");
    let mallory = tls::certificates(&folder, "mallory");
    let right = [(); 2].map(|()| tls::daemon(&folder, "alice", &[]));
    // It is whom it should be; its clients are not.
    let of = |authority: &str, name: &str| folder.path(&format!("{authority}/{name}"));
    let wrong = Daemon::start(&[
        "--tls-certificate",
        &of("alice", "server.pem"),
        "--tls-key",
        &of("alice", "server.key"),
        "--tls-client-ca",
        &of("mallory", "ca.pem"),
    ]);
    let error = refused([&right[0], &right[1]], &wrong.address, Some(&alice));
    let Why::Control(ControlError::Untrusted(said)) = &error.why else {
        panic!("{error:?}");
    };
    assert!(said.contains("--tls-client-ca"), "{said}");
    let mallory = Certificates {
        ca: alice.ca,
        ..mallory
    };
    let seen = status(&wrong, Some(&mallory)).counters.unwrap();
    assert_eq!(seen.sessions_opened, 0);
}
