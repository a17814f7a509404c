//! `certs init`: a development authority, a server certificate and a client certificate.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// How long the certificates last. A development authority: make new ones.
const VALID_DAYS: u64 = 365;

/// Names of the files in the folder.
pub mod file {
    /// The authority's certificate.
    pub const CA: &str = "ca.pem";
    /// The authority's key.
    pub const CA_KEY: &str = "ca.key";
    /// The server's certificate.
    pub const SERVER: &str = "server.pem";
    /// The server's key.
    pub const SERVER_KEY: &str = "server.key";
    /// The client's certificate.
    pub const CLIENT: &str = "client.pem";
    /// The client's key.
    pub const CLIENT_KEY: &str = "client.key";
    /// All of them.
    pub const ALL: [&str; 6] = [CA, CA_KEY, SERVER, SERVER_KEY, CLIENT, CLIENT_KEY];
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// Something is there already.
    #[error("{0} exists: nothing was written; choose another folder, or move the file away")]
    Exists(PathBuf),
    /// The folder or a file can't be written.
    #[error("{path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A host's name is not one, or the like.
    #[error("the certificate of {what} can't be made: {source}")]
    Make {
        /// Whose.
        what: &'static str,
        /// What is wrong.
        source: rcgen::Error,
    },
}

/// Makes an authority in `dir`, a server certificate for `hosts` (and loopback), and a client
/// certificate whose common name is `client`.
///
/// # Errors
/// A file is there already, or can't be written.
pub fn init(dir: &Path, hosts: &[String], client: &str) -> Result<(), CertsError> {
    let existing = file::ALL
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.exists());
    if let Some(path) = existing {
        return Err(CertsError::Exists(path));
    }
    let made = make(hosts, client)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| CertsError::Write {
            path: dir.to_owned(),
            source,
        })?;
    for (name, pem) in file::ALL.iter().zip(made) {
        write_new(&dir.join(name), &pem)?;
    }
    Ok(())
}

/// The PEM texts, in the order of [`file::ALL`].
fn make(hosts: &[String], client: &str) -> Result<[String; 6], CertsError> {
    let of = |what: &'static str| move |source| CertsError::Make { what, source };

    let mut ca = params(&[], "Genie development authority").map_err(of("the authority"))?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate().map_err(of("the authority"))?;
    let ca_key_pem = ca_key.serialize_pem();
    let issuer = CertifiedIssuer::self_signed(ca, ca_key).map_err(of("the authority"))?;

    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    names.extend(
        hosts
            .iter()
            .filter(|host| !names.contains(host))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let server_name = hosts.first().map_or("localhost", String::as_str);
    let mut server = params(&names, server_name).map_err(of("the server"))?;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node is a client of the nodes that it brings values to.
    server.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let server_key = KeyPair::generate().map_err(of("the server"))?;
    let server_pem = server
        .signed_by(&server_key, &issuer)
        .map_err(of("the server"))?
        .pem();

    let mut user = params(&[], client).map_err(of("the client"))?;
    user.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    user.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let user_key = KeyPair::generate().map_err(of("the client"))?;
    let user_pem = user
        .signed_by(&user_key, &issuer)
        .map_err(of("the client"))?
        .pem();

    Ok([
        issuer.pem(),
        ca_key_pem,
        server_pem,
        server_key.serialize_pem(),
        user_pem,
        user_key.serialize_pem(),
    ])
}

fn params(names: &[String], common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // A little in the past: clocks differ.
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(VALID_DAYS * 86400)).into();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn write_new(path: &Path, text: &str) -> Result<(), CertsError> {
    let wrong = |source| CertsError::Write {
        path: path.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(wrong)?;
    file.write_all(text.as_bytes()).map_err(wrong)
}

/// What was made, and how to use it.
#[must_use]
pub fn describe(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    format!(
        "An authority, a server certificate and a client certificate are in {}.\n\
         Serve: genie-dataplane --tls-certificate {} --tls-key {} --tls-client-ca {}\n\
         Clients need {}, {} and {}; keep the keys to yourself.",
        dir.display(),
        at(file::SERVER),
        at(file::SERVER_KEY),
        at(file::CA),
        at(file::CA),
        at(file::CLIENT),
        at(file::CLIENT_KEY)
    )
}
