//! Sessions: negotiation, the data path, and every way they end.

use std::time::{Duration, Instant};

use genie_control_api::{ErrorCode, v1};
use genie_session::client::Draft;
use genie_session::fault::Code;
use genie_session::frame::{self, Header, Kind};
use genie_session::record;
use nix::sys::signal::Signal;

use crate::client::{Client, Control, Frame, data, pattern, request};
use crate::fake;
use crate::process::Daemon;

/// The promise for memory of a session that is gone.
const GONE_MAX: Duration = Duration::from_secs(2);

#[test]
fn bytes_come_back_as_they_went() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    for len in [0, 1, 24, 65_535, 65_536, 1 << 20, 5_000_001] {
        let bytes = pattern(len);
        let storage = client.upload(&bytes);
        assert!(client.fetch(storage, len) == bytes, "{len} bytes");
    }
    let status = client.control.status();
    let session = &status.sessions[0];
    assert_eq!(session.id, client.reply.session_id);
    assert!(session.connected && session.memory_bytes >= 5_000_001 && session.tensors == 7);
    assert!(session.client.contains("here:"), "{}", session.client);
}

#[test]
fn many_uploads_and_fetches_at_once_do_not_stick() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let bytes = pattern(1 << 20);
    let storage = client.upload(&bytes);
    for fetch in 0..20 {
        client.ask(storage, bytes.len(), fetch);
        client.upload(&bytes[..700_000]);
    }
    for fetch in 0..20 {
        let frame = client.next();
        assert_eq!((frame.header.kind, frame.header.seq), (Kind::Data, fetch));
        assert!(frame.raw == bytes);
    }
}

#[test]
fn records_pile_up_behind_a_slow_executor_and_pings_do_not() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    client.call(1, fake::SLOW);
    let storage = client.upload(&[7; 100]);
    client.ask(storage, 100, 5);
    let asked = Instant::now();
    client.ping(3);
    assert!(
        asked.elapsed() < Duration::from_millis(90),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(client.next().header.kind, Kind::Data);
}

#[test]
fn a_ping_needs_no_executor() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    for seq in 0..1000 {
        client.ping(seq);
    }
    assert_eq!(daemon.metric("genie_executors_started_total"), 0.0);
}

#[test]
fn an_upload_without_room_is_dropped_and_poisons() {
    let daemon = Daemon::start(&[]);
    let small = v1::OpenSessionRequest {
        memory_bytes_wanted: 1 << 20,
        ..request()
    };
    let mut client = Client::connect_with(&daemon.address, None, small);
    assert_eq!(client.reply.memory_budget_bytes, 1 << 20);
    let storage = client.upload(&pattern(3 << 20));
    client.ask(storage, 3 << 20, 1);
    let fault = client.next();
    assert_eq!(fault.header.kind, Kind::Fault);
    assert_eq!(fault.fault().code, Code::OutOfMemory);
    assert_eq!(client.next().header.kind, Kind::FetchFault);
    let storage = client.upload(b"still here");
    assert_eq!(client.fetch(storage, 10), b"still here");
    assert_eq!(daemon.metric("genie_bulk_dropped_total"), 1.0);
}

#[test]
fn a_plan_is_installed_and_known_the_second_time() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    // Without an executor there is nothing to install in.
    client.call(1, "fake::noop");
    let mut segment = Vec::new();
    record::put_define_op(&mut segment, 1, "fake::noop");
    record::put_plain(&mut segment, record::Kind::Op, 1, &[0, 0], &[], &[], None);
    let mut submit = |plan_id| {
        client.control.submit(v1::SubmitSegmentRequest {
            session_id: client.reply.session_id,
            data_token: client.reply.data_token.clone(),
            plan_id,
            segment: segment.clone(),
        })
    };
    let first = submit(1).unwrap();
    assert!(first.installed && !first.cached, "{first:?}");
    let second = submit(2).unwrap();
    assert!(second.installed && second.cached, "{second:?}");
    assert_eq!(first.fingerprint, second.fingerprint);
    assert_eq!(daemon.metric("genie_plan_cache_hits_total"), 1.0);
    assert_eq!(daemon.metric("genie_plans_installed_total"), 2.0);
}

#[test]
fn a_segment_that_is_none_or_another_s_is_refused() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let mine = v1::SubmitSegmentRequest {
        session_id: client.reply.session_id,
        data_token: client.reply.data_token.clone(),
        plan_id: 1,
        segment: vec![0xff; 100],
    };
    let refused = client.control.submit(mine.clone()).unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::BadSegment));
    let wrong = v1::SubmitSegmentRequest {
        data_token: vec![0; 32],
        ..mine
    };
    let refused = client.control.submit(wrong).unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::UnknownSession));
}

#[test]
fn who_does_not_fit_is_refused_with_both_versions() {
    let daemon = Daemon::start(&["--memory", "1GiB"]);
    let mut control = Control::connect(&daemon.address, None).unwrap();
    let good = request();
    for (request, code, text) in [
        (
            v1::OpenSessionRequest {
                protocol_version: 999,
                ..good.clone()
            },
            ErrorCode::VersionMismatch,
            "999",
        ),
        (
            v1::OpenSessionRequest {
                torch_version: "2.10.0+cpu".into(),
                ..good.clone()
            },
            ErrorCode::TorchMismatch,
            "torch==2.11.0",
        ),
        (
            v1::OpenSessionRequest {
                schema_hash: 1,
                ..good.clone()
            },
            ErrorCode::SchemaMismatch,
            "schema hash",
        ),
        (
            v1::OpenSessionRequest {
                memory_bytes_wanted: 2 << 30,
                ..good.clone()
            },
            ErrorCode::Busy,
            "--memory",
        ),
    ] {
        let refused = control.open(request).unwrap_err();
        assert_eq!(ErrorCode::of(&refused), Some(code));
        assert!(refused.message().contains(text), "{refused}");
    }
    let other_build = v1::OpenSessionRequest {
        torch_version: "2.11.0+cu130".into(),
        ..good
    };
    assert!(control.open(other_build).is_ok());
}

#[test]
fn the_table_of_sessions_is_bounded() {
    let daemon = Daemon::start(&["--sessions", "2"]);
    let first = Client::connect(&daemon.address);
    let mut second = Client::connect(&daemon.address);
    let refused = second.control.open(request()).unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::Busy));
    drop(first);
    daemon.wait_metric("genie_sessions", 1.0, GONE_MAX);
    assert!(second.control.open(request()).is_ok());
}

#[test]
fn a_wrong_token_and_a_second_connection_are_refused() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let mine = client.reply.data_token.as_slice().try_into().unwrap();
    for token in [[0; 32], mine] {
        let mut stream = data(&daemon.address, None, &frame::encode_hello(&token));
        let lost = Frame::read(&mut *stream).unwrap();
        assert_eq!(lost.header.kind, Kind::Lost);
        assert_eq!(lost.fault().code, Code::SessionGone);
    }
    let mut hello = frame::encode_hello(&mine);
    hello[8] = 9;
    let lost = Frame::read(&mut *data(&daemon.address, None, &hello)).unwrap();
    assert!(lost.fault().message.contains("version 9"), "{lost:?}");
    client.ping(1);
}

#[test]
fn a_crash_is_one_session_s_and_nobody_else_s() {
    let daemon = Daemon::start(&[]);
    let mut other = Client::connect(&daemon.address);
    let kept = other.upload(&pattern(100_000));
    let mut client = Client::connect(&daemon.address);
    let storage = client.upload(b"doomed");
    assert_eq!(client.fetch(storage, 6), b"doomed");
    client.call(1, fake::CRASH);
    let fault = client.lost();
    assert_eq!(fault.code, Code::ExecutorDied);
    assert!(
        fault.message.contains("segmentation fault"),
        "{}",
        fault.message
    );
    daemon.wait_metric("genie_sessions", 1.0, GONE_MAX);
    assert_eq!(daemon.metric("genie_executors_died_total"), 1.0);
    assert!(other.fetch(kept, 100_000) == pattern(100_000));
    let mut again = Client::connect(&daemon.address);
    let storage = again.upload(b"anew");
    assert_eq!(again.fetch(storage, 4), b"anew");
}

#[test]
fn a_client_that_breaks_the_protocol_is_told_and_ended() {
    let daemon = Daemon::start(&[]);
    for header in [
        Header::new(Kind::InstallPlan, 1, 0),
        Header::new(Kind::Data, 1, 1 << 60),
        Header::new(Kind::PlaceSent, 1, 0),
        Header::new(Kind::PoolGone, 1, 0),
        Header::new(Kind::Records, 5, 0).with_payload(0),
    ] {
        let mut client = Client::connect(&daemon.address);
        client.say(header);
        if header.kind == Kind::Records {
            // An empty batch is no harm; a gap is.
            let gap = [record::Kind::Barrier as u8, 0, 2, 0, 0, 1, 0];
            client.say(header.with_payload(gap.len()));
            client.stream.write_all(&gap).unwrap();
        }
        assert_eq!(client.lost().code, Code::Protocol, "{header:?}");
    }
    daemon.wait_metric("genie_sessions", 0.0, GONE_MAX);
}

#[test]
fn a_client_that_leaves_takes_its_session_along() {
    let daemon = Daemon::start(&[]);
    let mut polite = Client::connect(&daemon.address);
    let storage = polite.upload(b"bye");
    assert_eq!(polite.fetch(storage, 3), b"bye");
    polite.say(Header::new(Kind::Goodbye, 0, 0));
    daemon.wait_metric("genie_sessions", 0.0, GONE_MAX);
    assert_eq!(daemon.metric("genie_sessions_lost_total"), 0.0);

    // In the middle of an upload.
    let mut rude = Client::connect(&daemon.address);
    let alloc = Draft {
        tail_numbers: &[9],
        fresh: 1,
        ..Draft::new(record::Kind::Alloc)
    };
    let storage = rude.log.append(&alloc).unwrap().first_fresh;
    let (_, message) = rude.log.append_bulk(storage, 1 << 20).unwrap();
    let mut bytes = message.header.encode().to_vec();
    bytes.extend_from_slice(&message.payload);
    rude.stream.write_all(&bytes).unwrap();
    drop(rude);
    daemon.wait_metric("genie_sessions", 0.0, GONE_MAX);
    assert_eq!(daemon.metric("genie_sessions_lost_total"), 1.0);
}

#[test]
fn a_session_is_closed_by_its_token_only() {
    let daemon = Daemon::start(&[]);
    let mut client = Client::connect(&daemon.address);
    let id = client.reply.session_id;
    assert!(!client.control.close(id, vec![0; 32]));
    client.ping(1);
    let token = client.reply.data_token.clone();
    assert!(client.control.close(id, token));
    assert!(Frame::read(&mut *client.stream).is_err());
    daemon.wait_metric("genie_sessions", 0.0, GONE_MAX);
}

#[test]
fn silence_ends_a_session_and_pings_keep_it() {
    let daemon = Daemon::start(&["--lease-seconds", "1"]);
    let mut silent = Client::connect(&daemon.address);
    let mut alive = Client::connect(&daemon.address);
    let mut never = Control::connect(&daemon.address, None).unwrap();
    never.open(request()).unwrap();
    for seq in 0..8 {
        std::thread::sleep(Duration::from_millis(200));
        alive.ping(seq);
    }
    let fault = silent.lost();
    assert_eq!(fault.code, Code::SessionGone);
    daemon.wait_metric("genie_sessions", 1.0, GONE_MAX);
}

#[test]
fn a_drain_lets_sessions_finish_and_refuses_new_ones() {
    let mut daemon = Daemon::start(&["--drain-seconds", "5"]);
    let mut client = Client::connect(&daemon.address);
    let storage = client.upload(b"late");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_line("draining");
    assert_eq!(client.fetch(storage, 4), b"late");
    assert!(daemon.get("/healthz").0.contains("503"));
    let refused = client.control.open(request()).unwrap_err();
    assert_eq!(ErrorCode::of(&refused), Some(ErrorCode::Draining));
    assert_eq!(client.fetch(storage, 4), b"late");
    let status = daemon.status(&[]);
    assert_eq!(status.status.code(), Some(1));
    client.say(Header::new(Kind::Goodbye, 0, 0));
    drop(client);
    assert_eq!(daemon.wait(GONE_MAX).code(), Some(0));
}

#[test]
fn a_drain_that_is_over_tells_who_is_left() {
    let mut daemon = Daemon::start(&["--drain-seconds", "0"]);
    let mut client = Client::connect(&daemon.address);
    client.ping(1);
    daemon.signal(Signal::SIGINT);
    assert_eq!(client.lost().code, Code::Draining);
    drop(client);
    assert_eq!(daemon.wait(GONE_MAX).code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut daemon = Daemon::start(&["--drain-seconds", "60"]);
    let mut client = Client::connect(&daemon.address);
    client.call(1, fake::ENDLESS);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_line("draining");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(GONE_MAX).code(), Some(1));
}
