//! Whatever bytes come, parsers refuse and never panic; and a node that is fed them keeps its
//! machine out of what it never made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use genie_session::client::{ClientLog, Draft};
use genie_session::fault::Fault;
use genie_session::frame::{self, HEADER_BYTES, HELLO_BYTES, Header};
use genie_session::machine::{Call, Failure, Machine, Metas, Source, View};
use genie_session::node::{NodeLog, decode_metas};
use genie_session::plan::Template;
use genie_session::record::{self, Kind};
use genie_session::segment::Ref;
use genie_session::skeleton::{self, out, tag};
use genie_session::varint::{Reader, put_i64, put_u64};
use proptest::prelude::*;

/// Checks what it is asked, and does nothing.
#[derive(Default)]
struct Checker {
    live: std::collections::HashSet<u64>,
}

impl Checker {
    fn all_live(&self, ids: &[u64]) {
        for id in ids {
            assert!(
                self.live.contains(id),
                "storage {id} was never made or is freed"
            );
        }
    }
}

impl Machine for Checker {
    fn define_op(&mut self, _: u32, _: &str) -> Result<(), Failure> {
        Ok(())
    }
    fn call(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        self.all_live(call.storages);
        let counts = skeleton::measure(call.skeleton, |_, _, _| {}).expect("measured before");
        assert_eq!(counts.storages, call.storages.len());
        assert_eq!(counts.params, call.params.len());
        assert_eq!(counts.data, call.data.len());
        let counts = skeleton::measure_out(call.out_skeleton, |_, _| {}, |_| {}).expect("measured");
        assert_eq!(counts.params, call.out_params.len());
        for fresh in 0..counts.fresh as u64 {
            assert!(self.live.insert(call.first_fresh + fresh));
        }
        Ok(())
    }
    fn call_sync(&mut self, call: &Call<'_>) -> Result<Metas, Failure> {
        self.all_live(call.storages);
        Ok(Metas::default())
    }
    fn alloc(&mut self, id: u64, _: u64) -> Result<(), Failure> {
        assert!(self.live.insert(id));
        Ok(())
    }
    fn resize(&mut self, id: u64, _: u64) -> Result<(), Failure> {
        self.all_live(&[id]);
        Ok(())
    }
    fn upload(&mut self, id: u64, bytes: u64, source: Source<'_>) -> Result<(), Failure> {
        // It may name a storage whose making failed: an upload heals it.
        self.live.insert(id);
        if let Source::Inline(blob) = source {
            assert_eq!(blob.len() as u64, bytes);
        }
        Ok(())
    }
    fn fetch(&mut self, _: u64, view: &View<'_>) -> Result<(), Failure> {
        self.all_live(&[view.storage]);
        assert_eq!(view.sizes.len(), view.strides.len());
        Ok(())
    }
    fn free(&mut self, id: u64) {
        self.live.remove(&id);
    }
    fn bytes(&self, id: u64) -> Option<u64> {
        self.live.contains(&id).then_some(4)
    }
    fn keep(&mut self, id: u64, copy: bool) -> Result<(), Failure> {
        self.all_live(&[id]);
        if !copy {
            self.live.remove(&id);
        }
        Ok(())
    }
    fn restore(&mut self, id: u64) {
        self.live.insert(id);
    }
}

/// A payload of records that is often right, so that the deeper code is reached.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let record = (
        0_u8..12,
        0_u64..6,
        0_u64..8,
        any::<i64>(),
        any::<bool>(),
        0_i64..6,
    );
    prop::collection::vec(record, 0..40).prop_map(|records| {
        let mut out = Vec::new();
        record::put_define_op(&mut out, 0, "aten::add.Tensor");
        for (what, reference, code, number, fresh, free) in records {
            let frees: &[i64] = if free == 1 { &[number % 9] } else { &[] };
            let mut numbers = Vec::new();
            let mut structure = Vec::new();
            let argument = [tag::TENSOR, 1, 6, 1, tag::INT];
            if what < 6 || what == 8 {
                put_u64(&mut structure, if what == 8 { 4 } else { 5 });
                structure.extend_from_slice(&argument[..if what == 8 { 4 } else { 5 }]);
            } else {
                put_u64(&mut structure, 0);
            }
            let refs = u64::from(what < 6 || (8..10).contains(&what));
            put_u64(&mut structure, refs);
            if refs == 1 {
                let code = if code > 5 { reference } else { code };
                put_u64(&mut structure, code);
                if code == 0 {
                    numbers.push(number.rem_euclid(12));
                }
            }
            let kind = match what {
                0..6 => {
                    if fresh {
                        structure.extend_from_slice(&[out::FRESH, 6, 1]);
                    }
                    numbers.extend([0, 2, 1, number]);
                    if fresh {
                        numbers.extend([2, 1]);
                    }
                    Kind::Op
                }
                6 | 7 => {
                    numbers.push(number);
                    Kind::Alloc
                }
                8 => {
                    numbers.extend([0, 2, 1, number]);
                    Kind::Fetch
                }
                9 => {
                    structure.push(0);
                    numbers.push(3);
                    Kind::Upload
                }
                10 => {
                    numbers.push(number);
                    Kind::Barrier
                }
                _ => Kind::Cut,
            };
            let blob = (kind == Kind::Upload).then_some(&[1, 2, 3][..]);
            record::put_plain(&mut out, kind, 0, &structure, &numbers, frees, blob);
        }
        out
    })
}

fn mutate(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
    }
    bytes
}

/// A large model goes at once: more frees than a record may have.
#[test]
fn a_flood_of_frees_is_spread_over_records() {
    const STORAGES: usize = 3 * record::FREES_MAX / 2;
    let mut client = ClientLog::new();
    let mut node = NodeLog::new();
    let mut machine = Checker::default();
    let mut deliver = |client: &mut ClientLog| {
        while let Some(message) = client.flush() {
            let mut out = Vec::new();
            node.handle(
                &message.header,
                &message.payload,
                Source::NoMemory,
                &mut machine,
                &mut out,
            )
            .expect("an honest client");
        }
        client
            .acknowledged(client.next_seq(), 0)
            .expect("what was sent");
        node.live()
    };
    let alloc = Draft {
        tail_numbers: &[8],
        fresh: 1,
        ..Draft::new(Kind::Alloc)
    };
    let mut ids = Vec::new();
    for _ in 0..STORAGES {
        let appended = client.append(&alloc).expect("an alloc");
        ids.push(appended.first_fresh);
        if appended.full {
            deliver(&mut client);
        }
    }
    assert_eq!(deliver(&mut client), STORAGES);
    for id in ids {
        client.free(id);
    }
    let barrier = Draft {
        tail_numbers: &[1],
        ..Draft::new(Kind::Barrier)
    };
    client.append(&barrier).expect("a barrier");
    assert_eq!(deliver(&mut client), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn integers_survive(value in any::<u64>(), signed in any::<i64>()) {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, value);
        put_i64(&mut bytes, signed);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.var_u64(), Ok(value));
        prop_assert_eq!(reader.var_i64(), Ok(signed));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn references_survive(index in any::<u32>()) {
        for reference in [Ref::New, Ref::Local(index), Ref::Slot(index)] {
            prop_assert_eq!(Ref::from_code(reference.code()), Ok(reference));
        }
    }

    #[test]
    fn random_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = Reader::new(&bytes);
        while !reader.is_empty() && record::next_item(&mut reader).is_ok() {}
        let _ = Template::decode(&bytes);
        let _ = Fault::decode(&bytes);
        let _ = decode_metas(&bytes);
        let _ = skeleton::measure(&bytes, |_, _, _| {});
        let _ = skeleton::measure_out(&bytes, |_, _| {}, |_| {});
        if let Some(Ok(header)) = bytes.get(..HEADER_BYTES).map(<[u8; HEADER_BYTES]>::try_from)
            && let Ok(header) = Header::decode(&header)
        {
            prop_assert_eq!(&header.encode()[..], &bytes[..HEADER_BYTES]);
        }
        if let Some(Ok(hello)) = bytes.get(..HELLO_BYTES).map(<[u8; HELLO_BYTES]>::try_from) {
            let _ = frame::decode_hello(&hello);
        }
    }

    #[test]
    fn a_node_survives_hostile_records(
        payloads in prop::collection::vec(payload(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        random in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut node = NodeLog::new();
        let mut machine = Checker::default();
        let mut out = Vec::new();
        let plan = mutate(payloads[0].clone(), &changes);
        let install = Header::new(frame::Kind::InstallPlan, 0, 0);
        let _ = node.handle(&install, &plan, Source::NoMemory, &mut machine, &mut out);
        for payload in payloads {
            let payload = mutate(payload, &changes);
            let header = Header::new(frame::Kind::Records, node.expected_seq(), 0);
            let done = node.handle(&header, &payload, Source::NoMemory, &mut machine, &mut out);
            if done.is_err() {
                return Ok(());
            }
            let mut chunk = Vec::new();
            record::put_chunk(&mut chunk, 0, 0, random.len() as u32 % 5, &random);
            let header = Header::new(frame::Kind::Records, node.expected_seq(), 0);
            let done = node.handle(&header, &chunk, Source::NoMemory, &mut machine, &mut out);
            if done.is_err() {
                return Ok(());
            }
        }
    }

    #[test]
    fn faults_survive(cause in any::<u64>(), message in ".{0,64}") {
        let fault = Fault::new(genie_session::fault::Code::Value, cause, message);
        prop_assert_eq!(Fault::decode(&fault.encode()), Ok(fault));
    }

    #[test]
    fn span_is_exact_or_refused(
        sizes in prop::collection::vec(0_i64..5, 0..4),
        strides in prop::collection::vec(0_i64..9, 4),
        offset in 0_i64..7,
    ) {
        let strides = &strides[..sizes.len()];
        let mut last = None;
        let mut indices = vec![0_i64; sizes.len()];
        // Walks every element: the oracle.
        'walk: loop {
            if sizes.contains(&0) {
                break;
            }
            let at = offset + indices.iter().zip(strides).map(|(i, s)| i * s).sum::<i64>();
            last = last.max(Some(at));
            for dim in 0..sizes.len() {
                indices[dim] += 1;
                if indices[dim] < sizes[dim] {
                    continue 'walk;
                }
                indices[dim] = 0;
            }
            break;
        }
        let expected = last.map_or(0, |last| (last as u64 + 1) * 4);
        prop_assert_eq!(skeleton::span_bytes(6, offset, &sizes, strides), Some(expected));
        prop_assert_eq!(skeleton::span_bytes(6, i64::MAX, &[2], &[i64::MAX]), None);
        prop_assert_eq!(skeleton::span_bytes(6, 0, &[-1], &[1]), None);
    }
}
