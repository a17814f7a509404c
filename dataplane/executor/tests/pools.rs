//! Sessions whose tensors are in pools of a device, as they are on an accelerator; here of the host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use common::{Arg, Client, F32, NURSERY, Out, Reply};
use genie_gpudev::Limits;
use genie_session::fault::Code;
use genie_session::frame::{Header, Kind};

fn pattern(count: usize) -> (Vec<f32>, Vec<u8>) {
    let values: Vec<f32> = (0..count).map(|n| (n % 8191) as f32).collect();
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    (values, bytes)
}

fn neg(client: &mut Client, tensor: &common::Tensor) -> common::Tensor {
    let outs = [Out::Fresh(F32, tensor.sizes.clone())];
    let args = [Arg::T(tensor.clone())];
    client.call("aten::neg", &args, &outs).remove(0)
}

/// Until nothing is under way that could still be told.
fn settle(client: &mut Client, places: u64) {
    while client.executor.memory.places() > places {
        client.barrier().unwrap();
    }
}

#[test]
fn an_upload_is_used_where_it_lies_and_its_pool_goes_with_the_last() {
    let mut client = NURSERY.session_with_pools(401, Limits::default());
    let (values, bytes) = pattern(5 << 20);
    // 20 MiB each: three fit into the first pool, one into the second.
    let tensors: Vec<_> = (0..4)
        .map(|_| client.upload(F32, &[5 << 20], &bytes))
        .collect();
    for tensor in &tensors {
        let back = neg(&mut client, tensor);
        let back = client.fetch_floats(&back);
        assert!(back.iter().zip(&values).all(|(got, sent)| *got == -sent));
    }
    let first = tensors[0].clone();
    client.call(
        "aten::add_.Scalar",
        &[Arg::W(first.clone()), Arg::Scalar(1.0)],
        &[Out::Alias(0)],
    );
    assert_eq!(client.fetch_floats(&first)[7], 8.0);
    assert_eq!(client.executor.memory.places(), 4);
    for tensor in &tensors {
        client.free(tensor);
    }
    settle(&mut client, 0);
    // One pool is kept.
    assert_eq!(client.pools_gone, 1);
    let again = client.upload(F32, &[5 << 20], &bytes);
    assert_eq!(client.fetch_floats(&again)[8190], 8190.0);
}

#[test]
fn a_large_result_is_sent_from_the_pool_that_it_was_computed_in() {
    let mut client = NURSERY.session_with_pools(402, Limits::default());
    let (values, bytes) = pattern(4 << 20);
    let a = client.upload(F32, &[4 << 20], &bytes);
    let b = neg(&mut client, &a);
    let before = client.data_frames;
    let back = client.fetch_floats(&b);
    assert!(back.iter().zip(&values).all(|(got, sent)| *got == -sent));
    // 16 MiB in one piece; copies would come in parts.
    assert_eq!(client.data_frames - before, 1);
    // What was uploaded lies in a pool of the daemon's, and leaves in parts.
    let before = client.data_frames;
    assert_eq!(client.fetch_floats(&a)[9], 9.0);
    assert_eq!(client.data_frames - before, 16);
}

#[test]
fn what_finds_no_room_is_poisoned_and_the_rest_lives() {
    let limits = Limits {
        memory_bytes: 64 << 20,
        ..Limits::default()
    };
    let mut client = NURSERY.session_with_pools(403, limits);
    let small = client.floats(&[2], &[1.0, 2.0]);
    let (_, bytes) = pattern(18 << 20);
    let vast = client.upload(F32, &[18 << 20], &bytes);
    assert_eq!(client.fault_of(&vast).0, Code::OutOfMemory);
    // In the pool, but beyond what the session may use together with what it has.
    let (_, bytes) = pattern(8 << 20);
    let one = client.upload(F32, &[8 << 20], &bytes);
    let two = neg(&mut client, &one);
    assert_eq!(client.fault_of(&two).0, Code::OutOfMemory);
    assert_eq!(client.fetch_floats(&small), [1.0, 2.0]);
}

#[test]
fn a_place_that_is_in_no_pool_ends_the_session_alone() {
    let mut other = NURSERY.session_with_pools(404, Limits::default());
    let mut client = NURSERY.session_with_pools(405, Limits::default());
    let (_, bytes) = pattern(1 << 20);
    let sound = client.upload(F32, &[1 << 20], &bytes);
    assert_eq!(client.fetch_floats(&sound)[1], 1.0);
    let storage = client.alloc(4 << 20);
    let (before, message) = client.log.append_bulk(storage, 4 << 20).unwrap();
    if let Some(before) = before {
        client.push(before.header, &before.payload);
    }
    // Its last byte is past the first pool's end.
    let place: u64 = (64 << 20) + (64 << 20) - (1 << 20);
    let payload = [&place.to_le_bytes()[..], &message.payload].concat();
    client.push(message.header.with_payload(payload.len()), &payload);
    client.push(Header::new(Kind::PoolGone, 12345, 0), &[]);
    client.flush();
    let fault = loop {
        match client.receive() {
            Ok(Reply::Lost(fault)) => break fault.code,
            Ok(Reply::Other | Reply::Data(..)) => {}
            Ok(reply) => {
                let text = format!("{reply:?}");
                assert!(text.contains("Protocol"), "{text}");
                break Code::Protocol;
            }
            Err(error) => panic!("{error}"),
        }
        if let Some(fault) = client.faults.first() {
            break fault.code;
        }
    };
    assert_eq!(fault, Code::Protocol);
    let (_, bytes) = pattern(1 << 20);
    let alive = other.upload(F32, &[1 << 20], &bytes);
    assert_eq!(other.fetch_floats(&alive)[3], 3.0);
}
