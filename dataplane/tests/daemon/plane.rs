//! What a node does for a control plane that is a daemon of its own, and for whom it does not.

use genie_control_api::v1::watch_reply::What;
use genie_control_api::{ErrorCode, v1};
use genie_session::fault::Code;
use genie_session::frame::{self, Kind};
use rcgen::DnType;
use tonic::Status;

use crate::client::{Certificates, Control, Frame, data, request};
use crate::process::{Daemon, Folder};
use crate::tls::{certificates, daemon, signed};

const TOKEN: [u8; 32] = [9; 32];

/// A client whose session is number 5.
fn admission(principal: &str) -> v1::AdmitRequest {
    v1::AdmitRequest {
        session_id: 5,
        data_token: TOKEN.to_vec(),
        principal: principal.into(),
        tenant: "default".into(),
        device: 0,
        memory_budget_bytes: 1 << 20,
        client: "somewhere".into(),
    }
}

fn admit(control: &mut Control, wanted: v1::AdmitRequest) -> Result<(), Status> {
    let admitted = control.as_plane(|mut nodes| async move { nodes.admit(wanted).await });
    admitted.map(drop)
}

fn described(control: &mut Control) -> Result<v1::DescribeReply, Status> {
    let ask = v1::DescribeRequest {};
    control.as_plane(|mut nodes| async move { nodes.describe(ask).await })
}

fn refused<T>(answer: Result<T, Status>) -> Option<ErrorCode> {
    ErrorCode::of(&answer.err().expect("it is refused"))
}

/// A node that trusts `plane`; what `plane`, alice, and a stranger of the same authority show.
fn cast(folder: &Folder) -> (Daemon, [Certificates; 3]) {
    let alice = certificates(folder, "alice");
    let node = daemon(folder, "alice", &["--control-planes", "plane"]);
    let of = |name| signed(folder, "alice", &[(DnType::CommonName, name)]);
    (node, [of("plane"), alice, of("stranger")])
}

#[test]
fn only_who_is_named_lets_clients_in() {
    let folder = Folder::new();
    let (node, [plane, alice, stranger]) = cast(&folder);
    let mut others = Control::connect(&node.address, Some(&stranger)).unwrap();
    assert_eq!(refused(described(&mut others)), Some(ErrorCode::NotTrusted));
    let let_in = admit(&mut others, admission("stranger"));
    assert_eq!(refused(let_in), Some(ErrorCode::NotTrusted));
    let watched =
        others.as_plane(|mut nodes| async move { nodes.watch(v1::WatchRequest {}).await });
    assert_eq!(refused(watched), Some(ErrorCode::NotTrusted));

    let mut control = Control::connect(&node.address, Some(&plane)).unwrap();
    assert_eq!(described(&mut control).unwrap().devices.len(), 1);
    admit(&mut control, admission("alice")).unwrap();
    let hello = frame::encode_hello(&TOKEN);
    // Its own client, and nobody else, who let it in neither.
    for other in [&stranger, &plane] {
        let lost = Frame::read(&mut *data(&node.address, Some(other), &hello)).unwrap();
        assert_eq!(lost.fault().code, Code::SessionGone);
    }
    let mut connection = data(&node.address, Some(&alice), &hello);
    let welcome = Frame::read(&mut *connection).unwrap();
    assert_eq!(welcome.header.kind, Kind::Welcome);
    let seen = Control::connect(&node.address, Some(&alice))
        .unwrap()
        .status();
    assert_eq!(seen.sessions[0].principal, "alice");

    // Nobody else asks of it, and what was not let in here is not asked of.
    let install = |session_id| v1::InstallRequest {
        session_id,
        data_token: TOKEN.to_vec(),
        ..Default::default()
    };
    let other = others.as_plane(|mut nodes| async move { nodes.install(install(5)).await });
    assert_eq!(refused(other), Some(ErrorCode::NotTrusted));
    let mut hers = Control::connect(&node.address, Some(&alice)).unwrap();
    let opened = hers.open(request()).unwrap();
    let install = v1::InstallRequest {
        session_id: opened.session_id,
        data_token: opened.data_token,
        ..Default::default()
    };
    let other = control.as_plane(|mut nodes| async move { nodes.install(install).await });
    assert_eq!(refused(other), Some(ErrorCode::UnknownSession));
}

#[test]
fn what_a_control_plane_wants_is_checked() {
    let folder = Folder::new();
    let (node, [plane, ..]) = cast(&folder);
    let mut control = Control::connect(&node.address, Some(&plane)).unwrap();
    let wrong: [fn(&mut v1::AdmitRequest); 7] = [
        |wanted| wanted.session_id = 0,
        |wanted| wanted.data_token.truncate(31),
        |wanted| wanted.principal.clear(),
        |wanted| wanted.principal = "al\nice".into(),
        |wanted| wanted.tenant = " x".into(),
        |wanted| wanted.device = 1,
        |wanted| wanted.memory_budget_bytes = u64::MAX,
    ];
    for spoil in wrong {
        let mut wanted = admission("alice");
        spoil(&mut wanted);
        assert!(admit(&mut control, wanted.clone()).is_err(), "{wanted:?}");
    }
    assert!(control.status().sessions.is_empty());
    admit(&mut control, admission("alice")).unwrap();
    assert_eq!(
        refused(admit(&mut control, admission("alice"))),
        Some(ErrorCode::Busy)
    );
}

#[test]
fn who_watches_hears_what_ends_and_first_what_lives() {
    let folder = Folder::new();
    let (node, [plane, ..]) = cast(&folder);
    let mut control = Control::connect(&node.address, Some(&plane)).unwrap();
    admit(&mut control, admission("alice")).unwrap();
    let mut stream = control
        .as_plane(|mut nodes| async move { nodes.watch(v1::WatchRequest {}).await })
        .unwrap();
    let mut next = |control: &mut Control| {
        let said = control.wait(stream.message()).unwrap();
        said.and_then(|said| said.what).unwrap()
    };
    assert_eq!(
        next(&mut control),
        What::Living(v1::Living { sessions: vec![5] })
    );
    // Its client never comes.
    let What::Ended(ended) = next(&mut control) else {
        panic!("it ended");
    };
    assert_eq!(ended.session, 5);
    assert!(ended.reason.contains("never came"), "{}", ended.reason);
}
