//! Two ends whose handshake is done.

use std::sync::Arc;

use genie_tls::{TlsRead, TlsWrite, split};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

/// What rustls speaks.
pub const VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// One end.
pub struct End {
    pub read: TlsRead,
    pub write: TlsWrite,
}

/// A client and a server that know each other.
pub fn connections(version: &'static SupportedProtocolVersion) -> [Connection; 2] {
    let name = "node.example";
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let name = ServerName::try_from(name).unwrap();
    let mut ends = [
        Connection::from(ClientConnection::new(Arc::new(client), name).unwrap()),
        Connection::from(ServerConnection::new(Arc::new(server)).unwrap()),
    ];
    while ends
        .iter()
        .any(|end| end.is_handshaking() || end.wants_write())
    {
        let [client, server] = &mut ends;
        carry(client, server);
        carry(server, client);
    }
    ends
}

fn carry(from: &mut Connection, to: &mut Connection) {
    let mut cipher = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut cipher).unwrap();
    }
    let mut rest = &cipher[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
}

/// Both ends, split.
pub fn pair(version: &'static SupportedProtocolVersion) -> [End; 2] {
    connections(version).map(End::from)
}

impl From<Connection> for End {
    fn from(connection: Connection) -> Self {
        let (read, write) = split(connection);
        Self { read, write }
    }
}

/// Bytes that differ from place to place, and from one `seed` to another.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1 << 63;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
