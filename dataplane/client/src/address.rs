//! Addresses of nodes and gateways, and the certificates that go with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The port when an address names none.
pub const DEFAULT_PORT: u16 = 7700;

/// The TLS name of a node behind a gateway when an address names none.
pub const DEFAULT_NAME: &str = "localhost";
/// Longest path of a unix socket, in bytes.
const SOCKET_PATH_MAX: usize = 107;

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At the node itself.
    Node {
        /// Name or number, without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Through a gateway on this host.
    Gateway {
        /// Its socket.
        socket: PathBuf,
        /// The name in the certificate of the node behind it.
        name: String,
    },
}

/// Why an address or its certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not of the form that is understood.
    #[error(
        "{0:?} is not an address: write tcp://HOST:PORT for a node, for example \
         tcp://127.0.0.1:7700, or unix:///PATH for a gateway on this host"
    )]
    Malformed(String),
    /// A gateway's socket that can't be one.
    #[error(
        "{text:?} is not a gateway's address: {why}; write unix:///run/genie/gateway.sock, or \
         unix:///run/genie/gateway.sock?name=HOST where the node's certificate is for HOST"
    )]
    Gateway {
        /// What was given.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Not all of the three files were given.
    #[error(
        "TLS needs three files: the authority (ca, GENIE_CA), this client's certificate (cert, \
         GENIE_CERT) and its key (key, GENIE_KEY); {0} is missing"
    )]
    Incomplete(&'static str),
    /// A file that is not what it should be.
    #[error("{path}: {why}; `genie-dataplane certs init DIR` makes a working set")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Address {
    /// Parses `tcp://HOST:PORT` (the scheme and the port may be left out), or
    /// `unix:///PATH?name=HOST` (the name may be left out).
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        if let Some(rest) = text.strip_prefix("unix:") {
            return Self::parse_gateway(rest).map_err(|why| AddressError::Gateway {
                text: text.to_owned(),
                why,
            });
        }
        let rest = match text.split_once("://") {
            Some(("tcp", rest)) => rest,
            Some(_) => return Err(malformed()),
            None => text,
        };
        let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
            let (host, tail) = inner.split_once(']').ok_or_else(malformed)?;
            (host, tail.strip_prefix(':'))
        } else {
            match rest.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                Some(_) => (rest, None),
                None => (rest, None),
            }
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| malformed())?,
            None => DEFAULT_PORT,
        };
        if host.is_empty() || host.contains(['/', ' ', '@']) || port == 0 {
            return Err(malformed());
        }
        Ok(Self::Node {
            host: host.to_owned(),
            port,
        })
    }

    fn parse_gateway(rest: &str) -> Result<Self, &'static str> {
        let rest = rest.strip_prefix("//").ok_or("it has no // after unix:")?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        if !path.starts_with('/') || path.ends_with('/') {
            return Err("its path is not that of a socket, from / on");
        }
        if path.len() > SOCKET_PATH_MAX || path.contains('\0') {
            return Err("no socket can have so long a path");
        }
        let name = match query {
            None => DEFAULT_NAME,
            Some(query) => match query.strip_prefix("name=") {
                Some(name) if !name.is_empty() && !name.contains(['&', '=', '/', ' ', '?']) => name,
                _ => return Err("after ? it takes name=HOST only"),
            },
        };
        Ok(Self::Gateway {
            socket: PathBuf::from(path),
            name: name.to_owned(),
        })
    }

    /// The name that the node's certificate has to be for.
    #[must_use]
    pub fn server_name(&self) -> &str {
        match self {
            Self::Node { host, .. } => host,
            Self::Gateway { name, .. } => name,
        }
    }

    /// True for a gateway's.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        matches!(self, Self::Gateway { .. })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Node { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Gateway { socket, name } if name == DEFAULT_NAME => {
                write!(f, "unix://{}", socket.display())
            }
            Self::Gateway { socket, name } => {
                write!(f, "unix://{}?name={name}", socket.display())
            }
        }
    }
}

/// A client's side of TLS.
#[derive(Clone)]
pub struct Tls {
    /// Without ALPN, which depends on the channel.
    pub config: Arc<rustls::ClientConfig>,
}

impl Tls {
    /// From three PEM files; `None` if none of them is given.
    ///
    /// # Errors
    /// Some given and some not, or files that can't be used.
    pub fn from_files(
        ca: Option<&str>,
        cert: Option<&str>,
        key: Option<&str>,
    ) -> Result<Option<Self>, AddressError> {
        let (ca, cert, key) = match (ca, cert, key) {
            (None, None, None) => return Ok(None),
            (None, ..) => return Err(AddressError::Incomplete("the authority")),
            (_, None, _) => return Err(AddressError::Incomplete("the certificate")),
            (.., None) => return Err(AddressError::Incomplete("the key")),
            (Some(ca), Some(cert), Some(key)) => (ca, cert, key),
        };
        let file = |path: &str, why: String| AddressError::File {
            path: path.to_owned(),
            why,
        };
        let mut roots = rustls::RootCertStore::empty();
        for authority in certificates(ca)? {
            roots
                .add(authority)
                .map_err(|error| file(ca, error.to_string()))?;
        }
        let chain = certificates(cert)?;
        let private = PrivateKeyDer::from_pem_file(Path::new(key))
            .map_err(|error| file(key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| file(ca, error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private)
            .map_err(|error| file(cert, error.to_string()))?;
        Ok(Some(Self {
            config: Arc::new(config),
        }))
    }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, AddressError> {
    let file = |why: String| AddressError::File {
        path: path.to_owned(),
        why,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(Path::new(path))
        .map_err(|error| file(error.to_string()))?
        .collect();
    let found = found.map_err(|error| file(error.to_string()))?;
    if found.is_empty() {
        return Err(file("it holds no certificate".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse() {
        let parse = |text: &str| match Address::parse(text) {
            Ok(Address::Node { host, port }) => Some((host, port)),
            _ => None,
        };
        assert_eq!(
            parse("tcp://127.0.0.1:7701"),
            Some(("127.0.0.1".into(), 7701))
        );
        assert_eq!(parse("node7"), Some(("node7".into(), DEFAULT_PORT)));
        assert_eq!(parse("tcp://[::1]:80"), Some(("::1".into(), 80)));
        assert_eq!(parse("::1"), Some(("::1".into(), DEFAULT_PORT)));
        for bad in [
            "",
            "tcp://",
            "http://a:1",
            "a:b",
            "a:99999",
            "tcp://a:0",
            "a b:1",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn gateways_parse() {
        let gateway = |socket: &str, name: &str| Address::Gateway {
            socket: socket.into(),
            name: name.into(),
        };
        for (text, wanted) in [
            (
                "unix:///run/genie/gateway.sock",
                gateway("/run/genie/gateway.sock", "localhost"),
            ),
            ("unix:///g?name=node7", gateway("/g", "node7")),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address, wanted);
            assert_eq!(address.to_string(), text);
        }
        let long = format!("unix:///{}", "x".repeat(200));
        for bad in [
            "unix:",
            "unix:/run/g",
            "unix://run/g",
            "unix:///",
            "unix:///run/",
            "unix:///g?",
            "unix:///g?name=",
            "unix:///g?host=a",
            "unix:///g?name=a&name=b",
            &long,
        ] {
            let error = Address::parse(bad).unwrap_err();
            assert!(matches!(error, AddressError::Gateway { .. }), "{bad:?}");
            assert!(error.to_string().contains("unix:///run/genie"), "{error}");
        }
    }

    #[test]
    fn addresses_are_shown_as_they_are_written() {
        for text in ["tcp://node7:7700", "tcp://[::1]:80", "unix:///g"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn half_a_set_of_certificates_is_refused() {
        assert!(matches!(Tls::from_files(None, None, None), Ok(None)));
        assert!(matches!(
            Tls::from_files(Some("a"), None, Some("b")),
            Err(AddressError::Incomplete("the certificate"))
        ));
    }
}
