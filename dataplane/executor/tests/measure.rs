//! Measurements, not tests: `cargo test --release -p genie-executor --test measure -- --ignored
//! --nocapture --test-threads 1`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::time::Instant;

use common::{Arg, Client, F32, NURSERY, Out, Tensor};
use genie_gpudev::Limits;

/// A field of /proc/PID/smaps_rollup in KiB.
fn memory_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim_start_matches(':')
        .split_ascii_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn private_kib(pid: u32) -> u64 {
    memory_kib(pid, "Private_Dirty") + memory_kib(pid, "Private_Clean")
}

/// Processor time of the process's first thread.
fn cpu_us(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split_whitespace()
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn add(client: &mut Client, a: &Tensor, b: &Tensor) -> Tensor {
    let sizes = a.sizes.clone();
    client
        .call(
            "aten::add.Tensor",
            &[Arg::T(a.clone()), Arg::T(b.clone()), Arg::ScalarInt(1)],
            &[Out::Fresh(F32, sizes)],
        )
        .remove(0)
}

#[test]
#[ignore = "a measurement"]
fn a_start() {
    let started = Instant::now();
    std::sync::LazyLock::force(&NURSERY);
    let zygote = NURSERY.info.pid;
    println!(
        "zygote ready in {:.0} ms; schema hash {:#x}",
        started.elapsed().as_secs_f64() * 1e3,
        NURSERY.info.schema_hash
    );
    println!(
        "zygote: {} KiB resident, {} KiB private",
        memory_kib(zygote, "Rss"),
        private_kib(zygote)
    );
    let mut times = Vec::new();
    for session in 0..9 {
        let started = Instant::now();
        let mut client = NURSERY.session(300 + session, Limits::default());
        let forked = started.elapsed();
        let a = client.floats(&[2, 2], &[1.0; 4]);
        let sum = add(&mut client, &a, &a);
        client.fetch(&sum).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
        if session == 8 {
            println!(
                "fork {:.2} ms, to the first small result",
                forked.as_secs_f64() * 1e3
            );
            println!(
                "child with a tensor: {} KiB private",
                private_kib(client.executor.pid)
            );
            let sizes = [512, 512];
            let ones = |client: &mut Client| {
                client
                    .call(
                        "aten::ones",
                        &[
                            Arg::Ints(sizes.to_vec()),
                            Arg::Enum(6),
                            Arg::None,
                            Arg::Device,
                            Arg::None,
                        ],
                        &[Out::Fresh(F32, sizes.to_vec())],
                    )
                    .remove(0)
            };
            let a = ones(&mut client);
            let started = Instant::now();
            let outs = [Out::Fresh(F32, sizes.to_vec())];
            let product = client.call("aten::mm", &[Arg::T(a.clone()), Arg::T(a)], &outs);
            client.fetch(&product[0]).unwrap();
            println!(
                "first 512x512 product {:.1} ms, then {} KiB private",
                started.elapsed().as_secs_f64() * 1e3,
                private_kib(client.executor.pid)
            );
        }
    }
    println!("fork to first small result: median {:.2} ms", median(times));
}

#[test]
#[ignore = "a measurement"]
fn b_small_adds() {
    let mut client = NURSERY.session(310, Limits::default());
    let a = client.floats(&[2, 2], &[1.0; 4]);
    client.barrier().unwrap();
    let count = 20_000;
    for round in 0..4 {
        let before = cpu_us(client.executor.pid);
        let started = Instant::now();
        for _ in 0..count {
            let sum = add(&mut client, &a, &a);
            client.free(&sum);
        }
        let recorded = started.elapsed();
        client.barrier().unwrap();
        println!(
            "round {round}: small add {:.2} us, of these {:.2} us to record (this thread); the \
             executor's processor {:.2} us",
            started.elapsed().as_secs_f64() * 1e6 / f64::from(count),
            recorded.as_secs_f64() * 1e6 / f64::from(count),
            (cpu_us(client.executor.pid) - before) / f64::from(count)
        );
    }
    let stats = client.executor.to_executor.stats();
    println!("ring to the executor: {stats:?}");
}

#[test]
#[ignore = "a measurement"]
fn c_round_trips() {
    for (session, spin_us) in [(320, 0), (321, 20), (322, 50), (323, 100)] {
        round_trips(session, spin_us);
    }
}

fn round_trips(session: u64, spin_us: u32) {
    let limits = Limits {
        spin_us,
        ..Limits::default()
    };
    let mut client = NURSERY.session(session, limits);
    let a = client.floats(&[2, 2], &[1.0; 4]);
    for spacing_us in [0, 300] {
        let mut times = Vec::new();
        let before = cpu_us(client.executor.pid);
        for _ in 0..2000 {
            let started = Instant::now();
            let sum = add(&mut client, &a, &a);
            client.fetch(&sum).unwrap();
            client.free(&sum);
            times.push(started.elapsed().as_secs_f64() * 1e6);
            if spacing_us > 0 {
                std::thread::sleep(std::time::Duration::from_micros(spacing_us));
            }
        }
        println!(
            "spin {spin_us} us: add and fetch, {spacing_us} us apart: median {:.1} us; executor's \
             processor {:.1} us; so far {} sleeps, {} wakes",
            median(times),
            (cpu_us(client.executor.pid) - before) / 2000.0,
            client.executor.from_executor.stats().sleeps,
            client.executor.to_executor.stats().wakes,
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn d_bulk() {
    let mut client = NURSERY.session(312, Limits::default());
    for mib in [4, 64] {
        let count = mib << 18;
        let bytes = vec![1_u8; count * 4];
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..12 {
            let started = Instant::now();
            let a = client.upload(F32, &[count as i64], &bytes);
            client.barrier().unwrap();
            let uploaded = started.elapsed();
            let relu = client.call(
                "aten::relu",
                &[Arg::T(a.clone())],
                &[Out::Fresh(F32, vec![count as i64])],
            );
            client.barrier().unwrap();
            let computed = started.elapsed();
            client.fetch_without_copy(&relu[0]);
            let fetched = started.elapsed();
            client.free(&a);
            client.free(&relu[0]);
            for (list, time) in
                times
                    .iter_mut()
                    .zip([uploaded, computed - uploaded, fetched - computed])
            {
                list.push(time.as_secs_f64() * 1e3);
            }
        }
        let [up, relu, down] = times.map(median);
        println!("{mib} MiB: up {up:.2} ms, relu {relu:.2} ms, down {down:.2} ms");
    }
}

#[test]
#[ignore = "a measurement"]
fn e_matmul_and_idle() {
    let mut client = NURSERY.session(313, Limits::default());
    let sizes = vec![1024, 1024];
    let a = client
        .call(
            "aten::ones",
            &[
                Arg::Ints(sizes.clone()),
                Arg::Enum(6),
                Arg::None,
                Arg::Device,
                Arg::None,
            ],
            &[Out::Fresh(F32, sizes.clone())],
        )
        .remove(0);
    let small = vec![128, 128];
    let b = client
        .call(
            "aten::ones",
            &[
                Arg::Ints(small.clone()),
                Arg::Enum(6),
                Arg::None,
                Arg::Device,
                Arg::None,
            ],
            &[Out::Fresh(F32, small.clone())],
        )
        .remove(0);
    for (tensor, sizes, count) in [(&a, sizes, 10), (&b, small, 500)] {
        let mut times = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            for _ in 0..count {
                let args = [Arg::T(tensor.clone()), Arg::T(tensor.clone())];
                let made = client.call("aten::mm", &args, &[Out::Fresh(F32, sizes.clone())]);
                client.free(&made[0]);
            }
            client.barrier().unwrap();
            times.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(count));
        }
        println!("mm {sizes:?}: median {:.1} us", median(times));
    }
    let wide = vec![1 << 17];
    let c = client
        .call(
            "aten::ones",
            &[
                Arg::Ints(wide.clone()),
                Arg::Enum(6),
                Arg::None,
                Arg::Device,
                Arg::None,
            ],
            &[Out::Fresh(F32, wide.clone())],
        )
        .remove(0);
    let mut times = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        for _ in 0..500 {
            let args = [Arg::T(c.clone())];
            let made = client.call("aten::exp", &args, &[Out::Fresh(F32, wide.clone())]);
            client.free(&made[0]);
        }
        client.barrier().unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e6 / 500.0);
    }
    println!("exp of 131072: median {:.1} us", median(times));
    let ticks = || {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", client.executor.pid)).unwrap();
        let fields: Vec<&str> = text
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_secs(2));
    println!("idle: {} ticks of 10 ms in 2 s", ticks() - before);
}
