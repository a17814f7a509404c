//! TLS with client certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use genie_controlplane::sessions::Principal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::TlsFiles;

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

/// Who a verified client certificate says its bearer is.
#[must_use]
pub fn principal(certificate: &CertificateDer<'_>) -> Option<Principal> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value
            .as_str()
            .ok()
            .map(genie_controlplane::negotiate::shown)
    };
    let name = subject.iter_common_name().next().and_then(text)?;
    let tenant = subject.iter_organization().next().and_then(text);
    Some(Principal {
        name,
        tenant: tenant.unwrap_or_else(|| "default".to_owned()),
    })
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
