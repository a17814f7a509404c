//! Addresses of nodes and the certificates that go with them.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The port when an address names none.
pub const DEFAULT_PORT: u16 = 7700;

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or number, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why an address or its certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not of the form that is understood.
    #[error("{0:?} is not an address: write tcp://HOST:PORT, for example tcp://127.0.0.1:7700")]
    Malformed(String),
    /// A gateway's socket.
    #[error(
        "{0:?} names a gateway, and this build has none yet: connect to the node itself with \
         tcp://HOST:PORT"
    )]
    Gateway(String),
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
    /// Parses `tcp://HOST:PORT` (the scheme and the port may be left out).
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        if text.starts_with("unix:") {
            return Err(AddressError::Gateway(text.to_owned()));
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
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "tcp://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "tcp://{}:{}", self.host, self.port)
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
        let parse = |text: &str| Address::parse(text).map(|a| (a.host, a.port)).ok();
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
        assert!(matches!(
            Address::parse("unix:///x"),
            Err(AddressError::Gateway(_))
        ));
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
