//! Processes: crashes, kills, budgets, and who outlives whom.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Arg, F32, I64, NURSERY, Nursery, Out, Reply};
use genie_gpudev::zygote::Event;
use genie_gpudev::{DeviceKind, Exit, Limits, ZygoteError};
use genie_session::fault::Code;
use genie_session::frame::{Header, Kind};

fn lives(pid: u32) -> bool {
    // A process that ended and was not buried yet has no memory map.
    std::fs::read_to_string(format!("/proc/{pid}/statm")).is_ok_and(|text| !text.starts_with("0 "))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_crash_ends_one_session_and_nothing_else() {
    let mut bystander = NURSERY.session(200, Limits::default());
    let a = bystander.floats(&[2], &[1.0, 2.0]);
    bystander.barrier().unwrap();
    let mut victim = NURSERY.session(201, Limits::default());
    victim.barrier().unwrap();
    // As a kernel that aborts: what it would touch outside of its tensors is checked before it runs.
    // SAFETY: the executor is a child of this test's nursery, and not buried yet.
    unsafe { libc::kill(victim.executor.pid as libc::pid_t, libc::SIGABRT) };
    assert_eq!(NURSERY.exit_of(201), Exit::Signal(libc::SIGABRT));
    assert!(victim.barrier().is_err());
    assert_eq!(bystander.fetch_floats(&a), [1.0, 2.0]);
    let mut next = NURSERY.session(202, Limits::default());
    next.barrier().unwrap();
}

#[test]
fn the_budget_holds() {
    let limits = Limits {
        memory_bytes: 8 << 20,
        arena_bytes: 32 << 20,
        ..Limits::default()
    };
    let mut client = NURSERY.session(203, limits);
    let small = client.floats(&[2], &[1.0, 2.0]);
    let ones = |sizes: Vec<i64>| {
        [
            Arg::Ints(sizes),
            Arg::Enum(6),
            Arg::None,
            Arg::Device,
            Arg::None,
        ]
        .to_vec()
    };
    let big = vec![4 << 20];
    let made = client.call("aten::ones", &ones(big.clone()), &[Out::Fresh(F32, big)]);
    let (code, message) = client.fault_of(&made[0]);
    assert_eq!(code, Code::OutOfMemory);
    assert!(
        message.contains("16777216") && message.contains("8388608"),
        "{message}"
    );
    let vast = vec![1 << 60];
    let made = client.call("aten::ones", &ones(vast.clone()), &[Out::Fresh(F32, vast)]);
    assert!(matches!(
        client.fault_of(&made[0]).0,
        Code::OutOfMemory | Code::Operator
    ));
    // Uploads count too, and what they took is given back.
    let up = client.upload(F32, &[4 << 20], &vec![0; 16 << 20]);
    assert_eq!(client.fault_of(&up).0, Code::OutOfMemory);
    wait_for("the place comes back", || {
        let _ = client.barrier();
        client.executor.memory.places() == 0
    });
    // Freed memory can be used again, for as long as one likes.
    for _ in 0..20 {
        let made = client.call(
            "aten::ones",
            &ones(vec![1 << 20]),
            &[Out::Fresh(F32, vec![1 << 20])],
        );
        client.barrier().unwrap();
        client.free(&made[0]);
    }
    assert_eq!(client.fetch_floats(&small), [1.0, 2.0]);
    wait_for("the report of memory use", || {
        client.barrier().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        client.usage.0 < 1 << 20 && client.usage.1 >= 1
    });
}

#[test]
fn temporaries_of_kernels_are_counted() {
    let limits = Limits {
        memory_bytes: 4 << 20,
        arena_bytes: 8 << 20,
        ..Limits::default()
    };
    let mut client = NURSERY.session(204, limits);
    let a = client.floats(&[1, 1, 1, 1], &[1.0]);
    let wide = common::Tensor {
        sizes: vec![1024, 1024, 1, 1],
        strides: vec![0; 4],
        ..a
    };
    let sorted = client.call(
        "aten::sort",
        &[Arg::T(wide), Arg::Int(0), Arg::Bool(false)],
        &[
            Out::Fresh(F32, vec![1024, 1024, 1, 1]),
            Out::Fresh(I64, vec![1024, 1024, 1, 1]),
        ],
    );
    assert_eq!(client.fault_of(&sorted[0]).0, Code::OutOfMemory);
}

#[test]
fn a_fetch_waits_for_room_in_the_arena() {
    let limits = Limits {
        arena_bytes: 4 << 20,
        ..Limits::default()
    };
    let mut client = NURSERY.session(205, limits);
    let count = 600_000;
    let made = client.call(
        "aten::ones",
        &[
            Arg::Ints(vec![count]),
            Arg::Enum(6),
            Arg::None,
            Arg::Device,
            Arg::None,
        ],
        &[Out::Fresh(F32, vec![count])],
    );
    // Three answers of 2.4 MB, room for one: each leaves when the one before was taken.
    let fetches: Vec<u64> = (0..3).map(|_| client.fetch_later(&made[0])).collect();
    client.flush();
    for fetch in fetches {
        assert_eq!(client.wait_fetch(fetch).unwrap().len(), 4 * count as usize);
    }
    let vast = common::Tensor {
        sizes: vec![1 << 21],
        strides: vec![0],
        ..made[0].clone()
    };
    let (code, message) = client.fault_of(&vast);
    assert_eq!(code, Code::OutOfMemory, "{message}");
}

#[test]
fn a_killed_executor_is_reported_and_its_rings_close() {
    let mut client = NURSERY.session(206, Limits::default());
    client.barrier().unwrap();
    let pid = client.executor.pid;
    client.executor.kill();
    assert_eq!(NURSERY.exit_of(206), Exit::Signal(libc::SIGKILL));
    assert!(!lives(pid));
    assert!(client.barrier().is_err());
}

#[test]
fn a_dropped_handle_kills_even_a_busy_executor() {
    let mut client = NURSERY.session(207, Limits::default());
    let a = client.floats(&[1], &[1.0]);
    // Adds up for hours.
    let vast = common::Tensor {
        sizes: vec![1 << 30, 1 << 20],
        strides: vec![0, 0],
        ..a
    };
    client.call(
        "aten::sum",
        &[Arg::T(vast), Arg::None],
        &[Out::Fresh(F32, vec![])],
    );
    client.flush();
    std::thread::sleep(Duration::from_millis(50));
    let pid = client.executor.pid;
    drop(client);
    assert_eq!(NURSERY.exit_of(207), Exit::Signal(libc::SIGKILL));
    assert!(!lives(pid));
}

#[test]
fn goodbye_ends_an_executor_in_peace() {
    let mut client = NURSERY.session(208, Limits::default());
    client.barrier().unwrap();
    client.push(Header::new(Kind::Goodbye, 0, 0), &[]);
    assert_eq!(NURSERY.exit_of(208), Exit::Status(0));
}

#[test]
fn a_session_has_one_executor() {
    let client = NURSERY.session(209, Limits::default());
    let again = NURSERY
        .zygote
        .fork(209, DeviceKind::Host(0), Limits::default());
    assert!(matches!(again, Err(ZygoteError::Twice(209))));
    drop(client);
}

#[test]
fn nonsense_is_answered_and_ends_the_session_only() {
    for (session, payload) in [
        (210, &b"\xff\xff\xff"[..]),
        (211, &[0x10, 1, 200, 1]),
        (212, &[1, 0, 2, 0, 5, 0]),
    ] {
        let mut client = NURSERY.session(session, Limits::default());
        client.push(
            Header::new(Kind::Records, 0, 0).with_payload(payload.len()),
            payload,
        );
        let lost = loop {
            match client.receive() {
                Ok(Reply::Lost(fault)) => break fault,
                Ok(_) => {}
                Err(error) => panic!("session {session}: {error}"),
            }
        };
        assert_eq!(lost.code, Code::Protocol);
        assert_eq!(NURSERY.exit_of(session), Exit::Status(2));
    }
}

/// Structures that are well formed and numbers that are not: whatever they do to the executor,
/// it never crashes on what is checked here (bounds, tags, types).
#[test]
fn odd_arguments_are_errors_and_not_crashes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let names = [
        "aten::add.Tensor",
        "aten::relu",
        "aten::cat",
        "aten::mm",
        "aten::sum.dim_IntList",
    ];
    let mut client = NURSERY.session(213, Limits::default());
    let a = client.floats(&[8], &[1.0; 8]);
    for _ in 0..400 {
        let mut args = Vec::new();
        for _ in 0..1 + random(4) {
            let odd = [0, 1, 2, 7, 8, 9, -1, i64::MAX, i64::MIN, 1 << 40];
            let mut pick = || odd[random(odd.len() as u64) as usize];
            let view = common::Tensor {
                offset: pick(),
                sizes: vec![pick(), pick()],
                strides: vec![pick(), pick()],
                dtype: pick() as u8,
                ..a.clone()
            };
            args.push(match random(9) {
                0 => Arg::T(view),
                1 => Arg::T(a.clone()),
                2 => Arg::Int(random(9) as i64 - 4),
                3 => Arg::Ints(vec![random(5) as i64 - 2, 0]),
                4 => Arg::None,
                5 => Arg::List(vec![Arg::T(a.clone()), Arg::None]),
                6 => Arg::Str("x"),
                7 => Arg::Scalar(f64::NAN),
                _ => Arg::Bool(true),
            });
        }
        let name = names[random(names.len() as u64) as usize];
        let made = client.call(name, &args, &[Out::Fresh(F32, vec![8])]);
        client.free(&made[0]);
    }
    client.barrier().unwrap();
    assert_eq!(client.fetch_floats(&a), [1.0; 8]);
}

#[test]
fn executors_die_with_the_zygote_and_the_zygote_with_the_daemon() {
    let nursery = Nursery::start();
    let mut client = nursery.session(1, Limits::default());
    client.barrier().unwrap();
    let (zygote, executor) = (nursery.info.pid, client.executor.pid);
    assert!(lives(zygote) && lives(executor));
    drop(nursery);
    assert!(!lives(zygote));
    wait_for("the executor is gone", || !lives(executor));
    assert!(client.barrier().is_err());

    let nursery = Nursery::start();
    let mut client = nursery.session(1, Limits::default());
    client.barrier().unwrap();
    // SAFETY: a plain system call; the process is the zygote that was just started.
    unsafe { libc::kill(nursery.info.pid as i32, libc::SIGKILL) };
    wait_for("the executor is gone", || !lives(client.executor.pid));
    assert!(client.barrier().is_err());
    assert!(
        nursery
            .zygote
            .fork(2, DeviceKind::Host(0), Limits::default())
            .is_err()
    );
}

#[test]
fn what_can_not_start_says_why() {
    let missing = genie_gpudev::Zygote::start(
        std::path::Path::new("/no/such/genie-executor"),
        &common::libtorch(),
        |_: Event| {},
    );
    assert!(
        matches!(missing, Err(ZygoteError::Spawn { .. })),
        "{missing:?}"
    );
    let other = genie_gpudev::Zygote::start(
        std::path::Path::new("/bin/false"),
        &common::libtorch(),
        |_: Event| {},
    );
    assert!(
        matches!(other, Err(ZygoteError::NotReady { .. })),
        "{other:?}"
    );
    let by_hand = std::process::Command::new(env!("CARGO_BIN_EXE_genie-executor"))
        .output()
        .unwrap();
    assert_eq!(by_hand.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("genie-dataplane"));
}

#[test]
fn cuda_without_a_driver_is_a_clear_error() {
    if std::path::Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let executor = NURSERY
        .zygote
        .fork(214, DeviceKind::Cuda(0), Limits::default())
        .unwrap();
    let mut client = common::Client::new(executor);
    match client.receive() {
        Ok(Reply::Lost(fault)) => assert_ne!(fault.message, ""),
        other => panic!("{other:?}"),
    }
    assert_eq!(NURSERY.exit_of(214), Exit::Status(3));
}
