//! Threads of an operator: by its work, and by what was allowed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use common::{Arg, Client, F32, NURSERY, Out};
use genie_gpudev::Limits;

fn session(number: u64, threads: u32) -> Client {
    let limits = Limits {
        threads,
        ..Limits::default()
    };
    NURSERY.session(number, limits)
}

fn threads_of(client: &Client) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", client.executor.pid));
    tasks.unwrap().count()
}

fn ones(client: &mut Client, sizes: &[i64]) -> common::Tensor {
    let args = [
        Arg::Ints(sizes.to_vec()),
        Arg::Enum(6),
        Arg::None,
        Arg::Device,
        Arg::None,
    ];
    let made = client.call("aten::ones", &args, &[Out::Fresh(F32, sizes.to_vec())]);
    made[0].clone()
}

/// Elements for which libtorch by itself would take every thread that it has.
const SMALL: i64 = 40_000;

#[test]
fn small_operators_have_one_thread_and_large_ones_what_is_allowed() {
    for (number, allowed) in [(700, 1), (701, 2)] {
        let mut client = session(number, allowed);
        let small = ones(&mut client, &[SMALL]);
        for _ in 0..50 {
            client.call(
                "aten::mul_.Scalar",
                &[Arg::W(small.clone()), Arg::Scalar(1.0)],
                &[Out::Alias(0)],
            );
        }
        client.barrier().unwrap();
        assert_eq!(threads_of(&client), 1, "small operators");
        let large = ones(&mut client, &[512, 512]);
        client.call(
            "aten::mm",
            &[Arg::T(large.clone()), Arg::T(large)],
            &[Out::Fresh(F32, vec![512, 512])],
        );
        client.barrier().unwrap();
        assert_eq!(threads_of(&client), allowed as usize, "a large operator");
    }
}

#[test]
fn beside_busy_processes_an_operator_takes_no_core_that_it_does_not_have() {
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores > 8 {
        return;
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut client = session(702, 0);
        client.barrier().unwrap();
        // What others do is looked at every 100 ms.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let large = ones(&mut client, &[256, 256]);
        for _ in 0..5 {
            client.call(
                "aten::mm",
                &[Arg::T(large.clone()), Arg::T(large.clone())],
                &[Out::Fresh(F32, vec![256, 256])],
            );
        }
        client.barrier().unwrap();
        let threads = threads_of(&client);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(threads, 1);
    });
}
