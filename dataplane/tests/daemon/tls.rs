//! TLS with client certificates, on both paths.

use std::os::unix::fs::PermissionsExt as _;

use genie_session::fault::Code;
use genie_session::frame::{self, Kind};
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};

use crate::client::{Certificates, Client, Control, Frame, data, pattern, request};
use crate::process::{Daemon, Folder, run, said};

/// Makes an authority in `folder` with one client.
pub fn certificates(folder: &Folder, client: &str) -> Certificates {
    let dir = folder.path(client);
    let made = run(&[
        "certs",
        "init",
        &dir,
        "--host",
        "node.example",
        "--client",
        client,
    ]);
    assert!(made.status.success(), "{}", said(&made));
    Certificates {
        ca: format!("{dir}/ca.pem"),
        identity: Some((format!("{dir}/client.pem"), format!("{dir}/client.key"))),
    }
}

/// A node that lets in who has a certificate of `authority`.
pub fn daemon(folder: &Folder, authority: &str, more: &[&str]) -> Daemon {
    let dir = folder.path(authority);
    let [certificate, key, ca] =
        ["server.pem", "server.key", "ca.pem"].map(|f| format!("{dir}/{f}"));
    let tls = [
        "--tls-certificate",
        &certificate,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ];
    Daemon::start(&[&tls, more].concat())
}

/// A certificate of `authority` for somebody whose subject is `parts`.
pub fn signed(folder: &Folder, authority: &str, parts: &[(DnType, &str)]) -> Certificates {
    let dir = folder.path(authority);
    let read = |name: &str| std::fs::read_to_string(format!("{dir}/{name}")).unwrap();
    let issuer_key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), issuer_key).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    for (part, text) in parts {
        params.distinguished_name.push(part.clone(), *text);
    }
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &issuer).unwrap().pem();
    let name = key
        .serialize_der()
        .iter()
        .map(|&b| usize::from(b))
        .sum::<usize>();
    let cert = folder.file(&format!("{name}.pem"), &pem);
    let key = folder.file(&format!("{name}.key"), &key.serialize_pem());
    Certificates {
        ca: format!("{dir}/ca.pem"),
        identity: Some((cert, key)),
    }
}

#[test]
fn certificates_are_made_once_and_kept_private() {
    let folder = Folder::new();
    certificates(&folder, "alice");
    let dir = folder.path("alice");
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
    let again = run(&["certs", "init", &dir]);
    assert_eq!(again.status.code(), Some(2));
    assert!(said(&again).contains("exists"), "{}", said(&again));
}

#[test]
fn both_paths_work_with_a_certificate_and_not_without() {
    let folder = Folder::new();
    let alice = certificates(&folder, "alice");
    let daemon = daemon(&folder, "alice", &[]);
    let mut client = Client::connect_with(&daemon.address, Some(&alice), request());
    for len in [10, 100_000, 3_000_000] {
        let bytes = pattern(len);
        let storage = client.upload(&bytes);
        assert!(client.fetch(storage, len) == bytes, "{len}");
    }
    client.ping(9);
    assert_eq!(client.control.status().sessions[0].principal, "alice");

    let nobody = Certificates {
        identity: None,
        ..alice.clone()
    };
    assert!(is_refused(&daemon.address, Some(&nobody)));
    // In the clear there is nothing, either.
    assert!(is_refused(&daemon.address, None));
    let stranger = certificates(&folder, "mallory");
    let wrong = Certificates {
        ca: alice.ca.clone(),
        ..stranger
    };
    assert!(is_refused(&daemon.address, Some(&wrong)));
    client.ping(10);

    let (cert, key) = alice.identity.clone().unwrap();
    let port = daemon.address.rsplit_once(':').unwrap().1;
    let address = format!("localhost:{port}");
    let status = run(&[
        "status", &address, "--ca", &alice.ca, "--cert", &cert, "--key", &key,
    ]);
    assert_eq!(status.status.code(), Some(0), "{}", said(&status));
    let without = run(&["status", &daemon.address]);
    assert_eq!(without.status.code(), Some(2));
    assert!(said(&without).contains("--ca"), "{}", said(&without));
}

/// Whether the connection, or opening a session on it, failed.
fn is_refused(address: &str, tls: Option<&Certificates>) -> bool {
    let control = Control::connect(address, tls);
    control.is_err() || control.is_ok_and(|mut control| control.open(request()).is_err())
}

#[test]
fn a_token_is_its_principal_s_and_its_tenant_s_alone() {
    let folder = Folder::new();
    let alice = certificates(&folder, "alice");
    let daemon = daemon(&folder, "alice", &[]);
    let mut control = Control::connect(&daemon.address, Some(&alice)).unwrap();
    let reply = control.open(request()).unwrap();
    let hello = frame::encode_hello(&reply.data_token.as_slice().try_into().unwrap());
    // Bob; and one who is called as she is, of another tenant.
    for (name, tenant) in [("bob", "bob's"), ("alice", "bob's"), ("bob", "default")] {
        let parts = [
            (DnType::CommonName, name),
            (DnType::OrganizationName, tenant),
        ];
        let other = signed(&folder, "alice", &parts);
        let lost = Frame::read(&mut *data(&daemon.address, Some(&other), &hello)).unwrap();
        assert_eq!(
            (lost.header.kind, lost.fault().code),
            (Kind::Lost, Code::SessionGone),
            "{name} of {tenant}"
        );
        let mut others = Control::connect(&daemon.address, Some(&other)).unwrap();
        assert!(!others.close(reply.session_id, reply.data_token.clone()));
        // They see nothing of another tenant.
        assert_eq!(others.status().sessions.is_empty(), tenant != "default");
    }
    let welcome = Frame::read(&mut *data(&daemon.address, Some(&alice), &hello)).unwrap();
    assert_eq!(welcome.header.kind, Kind::Welcome);
}

#[test]
fn names_are_taken_whole_or_not_at_all() {
    let folder = Folder::new();
    certificates(&folder, "authority");
    let daemon = daemon(&folder, "authority", &[]);
    let long = "x".repeat(80);
    let longer = format!("{long}y");
    for name in [&long, &longer] {
        let somebody = signed(&folder, "authority", &[(DnType::CommonName, name)]);
        let mut control = Control::connect(&daemon.address, Some(&somebody)).unwrap();
        let opened = control.open(request()).unwrap();
        let sessions = control.status().sessions;
        let mine = sessions.iter().find(|s| s.id == opened.session_id).unwrap();
        assert_eq!(mine.principal, *name);
    }
    let too_long = "x".repeat(200);
    for parts in [
        vec![(DnType::CommonName, too_long.as_str())],
        vec![(DnType::CommonName, "al\nice")],
        vec![(DnType::CommonName, " alice")],
        vec![(DnType::CommonName, "")],
        vec![(DnType::OrganizationName, "only a tenant")],
        vec![
            (DnType::CommonName, "alice"),
            (DnType::OrganizationName, too_long.as_str()),
        ],
        vec![
            (DnType::CommonName, "alice"),
            (DnType::OrganizationName, "a\u{202e}b"),
        ],
    ] {
        let somebody = signed(&folder, "authority", &parts);
        assert!(is_refused(&daemon.address, Some(&somebody)), "{parts:?}");
        daemon.wait_line("its certificate names nobody");
    }
}
