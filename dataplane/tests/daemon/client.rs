//! A client made of the session log, a socket and tonic.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use genie_control_api::v1;
use genie_control_api::v1::control_client::ControlClient;
use genie_control_api::v1::nodes_client::NodesClient;
use genie_control_api::v1::peers_client::PeersClient;
use genie_server::tls;
use genie_session::client::{ClientLog, Draft, Message};
use genie_session::fault::{Code, Fault};
use genie_session::frame::{self, HEADER_BYTES, Header, Kind, PROTOCOL_VERSION};
use genie_session::record;
use genie_session::skeleton::tag;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::fake;

/// How a client proves who it is.
#[derive(Clone)]
pub struct Certificates {
    pub ca: String,
    pub identity: Option<(String, String)>,
}

impl Certificates {
    pub fn config(&self, protocol: &[u8]) -> Arc<rustls::ClientConfig> {
        let identity = self.identity.as_ref();
        let identity = identity.map(|(cert, key)| (cert.as_ref(), key.as_ref()));
        tls::client_config(self.ca.as_ref(), identity, protocol).unwrap()
    }
}

/// What an honest client asks for.
pub fn request() -> v1::OpenSessionRequest {
    v1::OpenSessionRequest {
        protocol_version: PROTOCOL_VERSION,
        client_version: "test".into(),
        torch_version: fake::TORCH.into(),
        schema_hash: fake::SCHEMAS,
        pid: std::process::id(),
        hostname: "here".into(),
        memory_bytes_wanted: 0,
        ..Default::default()
    }
}

/// The control side.
pub struct Control {
    runtime: tokio::runtime::Runtime,
    client: ControlClient<Channel>,
    peers: PeersClient<Channel>,
    nodes: NodesClient<Channel>,
}

impl Control {
    pub fn connect(address: &str, tls: Option<&Certificates>) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let config = tls.map(|tls| tls.config(tls::alpn::HTTP2));
        let endpoint = Endpoint::try_from(format!("http://{address}")).unwrap();
        let target = address.to_owned();
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let (target, config) = (target.clone(), config.clone());
            async move {
                let socket = tokio::net::TcpStream::connect(&target).await?;
                socket.set_nodelay(true)?;
                let stream: Box<dyn Stream> = match config {
                    None => Box::new(socket),
                    Some(config) => {
                        let name = "localhost".try_into().unwrap();
                        Box::new(TlsConnector::from(config).connect(name, socket).await?)
                    }
                };
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .map_err(|error| format!("{error:?}"))?;
        Ok(Self {
            runtime,
            client: ControlClient::new(channel.clone()),
            peers: PeersClient::new(channel.clone()),
            nodes: NodesClient::new(channel),
        })
    }

    pub fn open(
        &mut self,
        request: v1::OpenSessionRequest,
    ) -> Result<v1::OpenSessionReply, tonic::Status> {
        self.runtime
            .block_on(self.client.open_session(request))
            .map(tonic::Response::into_inner)
    }

    pub fn submit(
        &mut self,
        request: v1::SubmitSegmentRequest,
    ) -> Result<v1::SubmitSegmentReply, tonic::Status> {
        self.runtime
            .block_on(self.client.submit_segment(request))
            .map(tonic::Response::into_inner)
    }

    pub fn offer_way(
        &mut self,
        request: v1::OfferWayRequest,
    ) -> Result<v1::OfferWayReply, tonic::Status> {
        self.runtime
            .block_on(self.peers.offer_way(request))
            .map(tonic::Response::into_inner)
    }

    pub fn open_way(
        &mut self,
        request: v1::OpenWayRequest,
    ) -> Result<v1::OpenWayReply, tonic::Status> {
        self.runtime
            .block_on(self.peers.open_way(request))
            .map(tonic::Response::into_inner)
    }

    /// Asks as a control plane does.
    pub fn as_plane<T, F>(
        &mut self,
        ask: impl FnOnce(NodesClient<Channel>) -> F,
    ) -> Result<T, tonic::Status>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let asked = self.runtime.block_on(ask(self.nodes.clone()));
        asked.map(tonic::Response::into_inner)
    }

    /// Waits for something of this connection.
    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    pub fn close(&mut self, session_id: u64, data_token: Vec<u8>) -> bool {
        let request = v1::CloseSessionRequest {
            session_id,
            data_token,
        };
        self.runtime
            .block_on(self.client.close_session(request))
            .unwrap()
            .into_inner()
            .closed
    }

    pub fn status(&mut self) -> v1::StatusReply {
        let request = v1::StatusRequest {};
        self.runtime
            .block_on(self.client.status(request))
            .unwrap()
            .into_inner()
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// Both directions of a data connection.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// Opens a data connection and sends its opening.
pub fn data(address: &str, tls: Option<&Certificates>, hello: &[u8]) -> Box<dyn Connection> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut stream: Box<dyn Connection> = match tls {
        None => Box::new(socket),
        Some(tls) => {
            let config = tls.config(tls::alpn::DATA);
            let name = "localhost".try_into().unwrap();
            let connection = rustls::ClientConnection::new(config, name).unwrap();
            Box::new(rustls::StreamOwned::new(connection, socket))
        }
    };
    stream.write_all(hello).unwrap();
    stream.flush().unwrap();
    stream
}

/// A frame with all its bytes.
#[derive(Debug)]
pub struct Frame {
    pub header: Header,
    pub payload: Vec<u8>,
    pub raw: Vec<u8>,
}

impl Frame {
    pub fn read(stream: &mut dyn Connection) -> std::io::Result<Self> {
        let mut head = [0; HEADER_BYTES];
        stream.read_exact(&mut head)?;
        let header = Header::decode(&head).unwrap();
        assert!(header.kind.is_from_node(), "{header:?}");
        let mut payload = vec![0; header.payload_len as usize];
        stream.read_exact(&mut payload)?;
        let raw = if header.kind == Kind::Data {
            header.aux
        } else {
            0
        };
        let mut raw = vec![0; raw as usize];
        stream.read_exact(&mut raw)?;
        Ok(Self {
            header,
            payload,
            raw,
        })
    }

    pub fn fault(&self) -> Fault {
        Fault::decode(&self.payload).unwrap()
    }
}

/// A session.
pub struct Client {
    pub control: Control,
    pub reply: v1::OpenSessionReply,
    pub stream: Box<dyn Connection>,
    pub log: ClientLog,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        Self::connect_with(address, None, request())
    }

    pub fn connect_with(
        address: &str,
        tls: Option<&Certificates>,
        request: v1::OpenSessionRequest,
    ) -> Self {
        let mut control = Control::connect(address, tls).unwrap();
        let reply = control.open(request).unwrap();
        let token = reply.data_token.as_slice().try_into().unwrap();
        let mut stream = data(address, tls, &frame::encode_hello(&token));
        let welcome = Frame::read(&mut *stream).unwrap();
        assert_eq!(
            (welcome.header.kind, welcome.header.seq),
            (Kind::Welcome, 0)
        );
        Self {
            control,
            reply,
            stream,
            log: ClientLog::new(),
        }
    }

    fn send(&mut self, message: &Message, raw: &[u8]) {
        let mut bytes = message.header.encode().to_vec();
        bytes.extend_from_slice(&message.payload);
        self.stream.write_all(&bytes).unwrap();
        self.stream.write_all(raw).unwrap();
        self.stream.flush().unwrap();
    }

    pub fn flush(&mut self) {
        while let Some(message) = self.log.flush() {
            self.send(&message, &[]);
        }
    }

    /// Uploads bytes as bulk; gives the storage.
    pub fn upload(&mut self, bytes: &[u8]) -> u64 {
        let alloc = Draft {
            tail_numbers: &[bytes.len() as i64],
            fresh: 1,
            ..Draft::new(record::Kind::Alloc)
        };
        let storage = self.log.append(&alloc).unwrap().first_fresh;
        let (before, message) = self.log.append_bulk(storage, bytes.len() as u64).unwrap();
        if let Some(before) = before {
            self.send(&before, &[]);
        }
        self.send(&message, bytes);
        storage
    }

    /// Calls an operator without arguments or results.
    pub fn call(&mut self, op: u32, name: &str) {
        self.log.define_op(op, name);
        self.log
            .append(&Draft {
                op,
                ..Draft::new(record::Kind::Op)
            })
            .unwrap();
        self.flush();
    }

    /// Asks for `len` bytes of a storage.
    pub fn ask(&mut self, storage: u64, len: usize, fetch: i64) {
        self.log
            .append(&Draft {
                skeleton: &[tag::TENSOR, 0, 0, 1],
                storages: &[storage],
                params: &[0, len as i64, 1],
                tail_numbers: &[fetch],
                ..Draft::new(record::Kind::Fetch)
            })
            .unwrap();
        self.flush();
    }

    /// The next frame that is no acknowledgement.
    pub fn next(&mut self) -> Frame {
        loop {
            let frame = Frame::read(&mut *self.stream).unwrap();
            if frame.header.kind != Kind::Ack {
                return frame;
            }
        }
    }

    /// Fetches a storage.
    pub fn fetch(&mut self, storage: u64, len: usize) -> Vec<u8> {
        self.ask(storage, len, 77);
        let frame = self.next();
        assert_eq!(
            (frame.header.kind, frame.header.seq),
            (Kind::Data, 77),
            "{frame:?}"
        );
        frame.raw
    }

    /// Sends a frame without payload.
    pub fn say(&mut self, header: Header) {
        self.stream.write_all(&header.encode()).unwrap();
        self.stream.flush().unwrap();
    }

    pub fn ping(&mut self, seq: u64) {
        self.say(Header::new(Kind::Ping, seq, 0));
        let pong = self.next();
        assert_eq!((pong.header.kind, pong.header.seq), (Kind::Pong, seq));
    }

    /// The last frame: why the session is over.
    pub fn lost(&mut self) -> Fault {
        let frame = self.next();
        assert_eq!(frame.header.kind, Kind::Lost, "{frame:?}");
        let fault = frame.fault();
        assert_ne!(fault.code, Code::Operator);
        fault
    }
}

/// Bytes that repeat late.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}
