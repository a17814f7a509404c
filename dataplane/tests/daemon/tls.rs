//! TLS with client certificates, on both paths.

use std::os::unix::fs::PermissionsExt as _;

use genie_session::fault::Code;
use genie_session::frame::{self, Kind};

use crate::client::{Certificates, Client, Control, Frame, data, pattern, request};
use crate::process::{Daemon, Folder, run, said};

/// Makes an authority in `folder` with one client.
fn certificates(folder: &Folder, client: &str) -> Certificates {
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

fn daemon(folder: &Folder, authority: &str) -> Daemon {
    let dir = folder.path(authority);
    let [certificate, key, ca] =
        ["server.pem", "server.key", "ca.pem"].map(|f| format!("{dir}/{f}"));
    Daemon::start(&[
        "--tls-certificate",
        &certificate,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ])
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
    let daemon = daemon(&folder, "alice");
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
fn a_token_is_its_principal_s_alone() {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
    let folder = Folder::new();
    let alice = certificates(&folder, "alice");
    let daemon = daemon(&folder, "alice");
    // Bob, from the same authority.
    let read = |name: &str| std::fs::read_to_string(folder.path("alice") + name).unwrap();
    let issuer_key = KeyPair::from_pem(&read("/ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("/ca.pem"), issuer_key).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "bob");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "bob's");
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &issuer).unwrap().pem();
    let cert = folder.file("bob.pem", &pem);
    let key = folder.file("bob.key", &key.serialize_pem());
    let bob = Certificates {
        ca: alice.ca.clone(),
        identity: Some((cert, key)),
    };

    let mut control = Control::connect(&daemon.address, Some(&alice)).unwrap();
    let reply = control.open(request()).unwrap();
    let hello = frame::encode_hello(&reply.data_token.as_slice().try_into().unwrap());
    let lost = Frame::read(&mut *data(&daemon.address, Some(&bob), &hello)).unwrap();
    assert_eq!(
        (lost.header.kind, lost.fault().code),
        (Kind::Lost, Code::SessionGone)
    );
    let mut bobs = Control::connect(&daemon.address, Some(&bob)).unwrap();
    assert!(!bobs.close(reply.session_id, reply.data_token.clone()));
    // Bob sees nothing of another tenant.
    assert!(bobs.status().sessions.is_empty());
    let welcome = Frame::read(&mut *data(&daemon.address, Some(&alice), &hello)).unwrap();
    assert_eq!(welcome.header.kind, Kind::Welcome);
}
