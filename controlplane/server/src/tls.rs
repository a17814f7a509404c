//! TLS with client certificates.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use genie_controlplane::identity::{Identity, NameError};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate};

use crate::settings::TlsFiles;

/// What is negotiated by ALPN on the one port.
pub mod alpn {
    /// gRPC.
    pub const HTTP2: &[u8] = b"h2";
    /// Metrics and health.
    pub const HTTP1: &[u8] = b"http/1.1";
    /// The data path.
    pub const DATA: &[u8] = b"genie-data/1";
}

/// Why TLS can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds no PEM of its kind.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate and the key do not go together, or the like.
    #[error("TLS can't be set up: {0}")]
    Setup(String),
}

/// A server that lets in clients with a certificate of the authority, and nobody else.
///
/// # Errors
/// Files that can't be read or do not go together.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(&files.client_ca)?),
        Arc::clone(&provider),
    )
    .build()
    .map_err(|error| setup(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key(&files.key)?)
        .map_err(|error| setup(&error))?;
    config.alpn_protocols = [alpn::HTTP2, alpn::HTTP1, alpn::DATA]
        .map(<[u8]>::to_vec)
        .to_vec();
    Ok(Arc::new(config))
}

/// A client that trusts `ca`, with a certificate of its own if it has one.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .with_root_certificates(roots(ca)?);
    let mut config = match identity {
        Some((certificate, private)) => builder
            .with_client_auth_cert(certificates(certificate)?, key(private)?)
            .map_err(setup)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// A node that goes to another one, with the certificate that it shows its own clients.
///
/// # Errors
/// As [`server_config`].
pub fn peer_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let identity = (files.certificate.as_path(), files.key.as_path());
    client_config(&files.client_ca, Some(identity), alpn::DATA)
}

/// A control plane that goes to a node, likewise.
///
/// # Errors
/// As [`server_config`].
pub fn caller_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let identity = (files.certificate.as_path(), files.key.as_path());
    client_config(&files.client_ca, Some(identity), alpn::HTTP2)
}

/// Why a certificate says of nobody who its bearer is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The connection has none.
    #[error("there is none")]
    NoCertificate,
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// A part of its subject is missing, or there several times: which is meant?
    #[error("its subject has {count} of {part}, and one is needed")]
    Count {
        /// Which.
        part: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A part is no name.
    #[error("{part}: {reason}")]
    Name {
        /// Which.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Who a verified client certificate says its bearer is: its common name is the principal, its
/// organisation the tenant. Both are taken as they are, or the certificate is refused.
///
/// # Errors
/// [`IdentityError`]
pub fn identity(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
    let unreadable = |error: &dyn std::fmt::Display| IdentityError::Unreadable(error.to_string());
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    if !rest.is_empty() {
        return Err(unreadable(&"there are bytes after it"));
    }
    let subject = parsed.subject();
    let name = only("common name", subject.iter_common_name())?;
    let name = name.ok_or(IdentityError::Count {
        part: "common name",
        count: 0,
    })?;
    let tenant = only("organisation", subject.iter_organization())?;
    Ok(Identity {
        principal: name,
        tenant: tenant.unwrap_or_default(),
    })
}

/// The one value of a part, if there is any.
fn only<'a, 'b: 'a, T: FromStr<Err = NameError>>(
    part: &'static str,
    values: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>,
) -> Result<Option<T>, IdentityError> {
    let values: Vec<_> = values.collect();
    let [value] = values[..] else {
        return match values.len() {
            0 => Ok(None),
            count => Err(IdentityError::Count { part, count }),
        };
    };
    let wrong = |reason: String| IdentityError::Name { part, reason };
    let text = value.as_str().map_err(|error| wrong(error.to_string()))?;
    text.parse()
        .map(Some)
        .map_err(|error: NameError| wrong(error.to_string()))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| file_error(path, &error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(path, &error))?;
    if all.is_empty() {
        return Err(file_error(path, &"there is no certificate in it"));
    }
    Ok(all)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| file_error(path, &error))
}

fn file_error(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
