//! Operators through the zygote, the rings and the session log, as a client sees them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use common::{Arg, BOOL, F32, F64, I64, NURSERY, Out, Tensor, row_major};
use genie_gpudev::Limits;
use genie_session::fault::Code;
use genie_session::skeleton::{out, tag};

#[test]
fn the_zygote_introduces_itself() {
    assert_eq!(NURSERY.info.torch_version, "2.11.0");
    assert_ne!(NURSERY.info.schema_hash, 0);
    // Loading again gives the same fingerprint.
    assert_eq!(
        common::Nursery::start().info.schema_hash,
        NURSERY.info.schema_hash
    );
}

#[test]
fn add_relu_and_matmul() {
    let mut client = NURSERY.session(100, Limits::default());
    let a = client.floats(&[2, 2], &[1.0, -2.0, 3.0, -4.0]);
    let b = client.floats(&[2, 2], &[0.5, 0.5, 0.5, 0.5]);
    let sum = client.call(
        "aten::add.Tensor",
        &[Arg::T(a.clone()), Arg::T(b.clone()), Arg::ScalarInt(2)],
        &[Out::Fresh(F32, vec![2, 2])],
    );
    let relu = client.call(
        "aten::relu",
        &[Arg::T(sum[0].clone())],
        &[Out::Fresh(F32, vec![2, 2])],
    );
    let product = client.call(
        "aten::mm",
        &[Arg::T(relu[0].clone()), Arg::T(a)],
        &[Out::Fresh(F32, vec![2, 2])],
    );
    assert_eq!(client.fetch_floats(&sum[0]), [2.0, -1.0, 4.0, -3.0]);
    assert_eq!(client.fetch_floats(&relu[0]), [2.0, 0.0, 4.0, 0.0]);
    assert_eq!(client.fetch_floats(&product[0]), [2.0, -4.0, 4.0, -8.0]);
    assert!(client.faults.is_empty());
}

#[test]
fn a_view_is_fetched_row_major() {
    let mut client = NURSERY.session(101, Limits::default());
    let a = client.floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let turned = Tensor {
        sizes: vec![3, 2],
        strides: vec![1, 3],
        ..a.clone()
    };
    assert_eq!(client.fetch_floats(&turned), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let row = Tensor {
        sizes: vec![3],
        strides: vec![1],
        offset: 3,
        ..a.clone()
    };
    assert_eq!(client.fetch_floats(&row), [4.0, 5.0, 6.0]);
    let nothing = Tensor {
        sizes: vec![0, 3],
        strides: vec![3, 1],
        ..a
    };
    assert!(client.fetch(&nothing).unwrap().is_empty());
}

#[test]
fn lists_of_tensors_and_optional_tensors() {
    let mut client = NURSERY.session(102, Limits::default());
    let a = client.floats(&[1, 2], &[1.0, 2.0]);
    let b = client.floats(&[2, 2], &[3.0, 4.0, 5.0, 6.0]);
    let both = client.call(
        "aten::cat",
        &[Arg::List(vec![Arg::T(a), Arg::T(b)]), Arg::Int(0)],
        &[Out::Fresh(F32, vec![3, 2])],
    );
    assert_eq!(
        client.fetch_floats(&both[0]),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    );
    let index = client.ints(&[2], &[1, 0]);
    let columns = client.call(
        "aten::index.Tensor",
        &[
            Arg::T(both[0].clone()),
            Arg::List(vec![Arg::None, Arg::T(index)]),
        ],
        &[Out::Fresh(F32, vec![3, 2])],
    );
    assert_eq!(
        client.fetch_floats(&columns[0]),
        [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]
    );
    let parts = client.call(
        "aten::split_with_sizes_copy",
        &[Arg::T(both[0].clone()), Arg::Ints(vec![1, 2])],
        &[Out::List(vec![
            Out::Fresh(F32, vec![1, 2]),
            Out::Fresh(F32, vec![2, 2]),
        ])],
    );
    assert_eq!(client.fetch_floats(&parts[1]), [3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn wrapped_numbers_do_not_promote() {
    let mut client = NURSERY.session(103, Limits::default());
    let a = client.floats(&[2], &[1.0, 2.0]);
    let scaled = client.call(
        "aten::mul.Tensor",
        &[Arg::T(a.clone()), Arg::Wrapped(F64, 1.5)],
        &[Out::Fresh(F32, vec![2])],
    );
    assert_eq!(client.fetch_floats(&scaled[0]), [1.5, 3.0]);
    let clamped = client.call(
        "aten::clamp",
        &[Arg::T(a), Arg::None, Arg::Scalar(1.25)],
        &[Out::Fresh(F32, vec![2])],
    );
    assert_eq!(client.fetch_floats(&clamped[0]), [1.0, 1.25]);
}

#[test]
fn an_int_serves_where_a_float_is_wanted() {
    let mut client = NURSERY.session(104, Limits::default());
    let a = client.floats(&[2], &[-1.0, 2.0]);
    let outs = [Out::Fresh(F32, vec![2])];
    let gelu = client.call("aten::gelu", &[Arg::T(a.clone()), Arg::Str("none")], &outs);
    assert!((client.fetch_floats(&gelu[0])[1] - 1.954_499_7).abs() < 1e-6);
    let norm = client.call(
        "aten::native_layer_norm",
        &[
            Arg::T(a),
            Arg::Ints(vec![2]),
            Arg::None,
            Arg::None,
            Arg::Int(0),
        ],
        &[
            Out::Fresh(F32, vec![2]),
            Out::Fresh(F32, vec![1]),
            Out::Fresh(F32, vec![1]),
        ],
    );
    assert_eq!(client.fetch_floats(&norm[0]), [-1.0, 1.0]);
}

#[test]
fn in_place_operators_write_what_views_see() {
    let mut client = NURSERY.session(105, Limits::default());
    let a = client.floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let row = Tensor {
        sizes: vec![2],
        strides: vec![1],
        offset: 2,
        ..a.clone()
    };
    client.call(
        "aten::mul_.Scalar",
        &[Arg::W(row), Arg::Scalar(10.0)],
        &[Out::Alias(0)],
    );
    assert_eq!(client.fetch_floats(&a), [1.0, 2.0, 30.0, 40.0]);
}

#[test]
fn what_is_being_sent_is_neither_written_nor_given_to_others() {
    let mut client = NURSERY.session(117, Limits::default());
    let count = 1 << 20;
    let values = vec![3.0; count as usize];
    let bytes: Vec<u8> = values.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
    let uploaded = client.upload(F32, &[count], &bytes);
    let computed = client.call(
        "aten::neg",
        &[Arg::T(uploaded)],
        &[Out::Fresh(F32, vec![count])],
    );
    let computed = computed[0].clone();
    // The daemon takes its time: meanwhile the tensor is written, freed, and its memory wanted.
    let first = client.fetch_later(&computed);
    client.call(
        "aten::add_.Scalar",
        &[Arg::W(computed.clone()), Arg::Scalar(1.0)],
        &[Out::Alias(0)],
    );
    let second = client.fetch_later(&computed);
    client.free(&computed);
    let other = client.call(
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
    client.flush();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let floats = |bytes: Vec<u8>| -> Vec<f32> {
        let four = bytes.chunks_exact(4);
        four.map(|raw| f32::from_le_bytes(raw.try_into().unwrap()))
            .collect()
    };
    let first = floats(client.wait_fetch(first).unwrap());
    assert!(first.iter().all(|&value| value == -3.0));
    let second = floats(client.wait_fetch(second).unwrap());
    assert!(second.iter().all(|&value| value == -2.0));
    assert!(client.fetch_floats(&other[0]).iter().all(|&v| v == 1.0));
}

#[test]
fn a_seed_decides_the_random_numbers() {
    let mut client = NURSERY.session(106, Limits::default());
    let mut draw = |seed| {
        let tensor = client.call(
            "aten::randn",
            &[
                Arg::Ints(vec![8]),
                Arg::Enum(6),
                Arg::None,
                Arg::Device,
                Arg::None,
                Arg::Seed(seed),
            ],
            &[Out::Fresh(F32, vec![8])],
        );
        client.fetch_floats(&tensor[0])
    };
    let (first, second, other) = (draw(42), draw(42), draw(43));
    assert_eq!(first, second);
    assert_ne!(first, other);
    // As torch.manual_seed(42); torch.randn(8) gives on the CPU.
    assert!((first[0] - 0.336_690_4).abs() < 1e-6, "{first:?}");
    let mut generated = |seed| {
        let a = client.floats(&[4], &[0.0; 4]);
        client.call(
            "aten::uniform_",
            &[
                Arg::W(a.clone()),
                Arg::Double(0.0),
                Arg::Double(1.0),
                Arg::Generator(seed),
            ],
            &[Out::Alias(0)],
        );
        client.fetch_floats(&a)
    };
    assert_eq!(generated(7), generated(7));
    assert_ne!(generated(7), generated(8));
}

#[test]
fn strides_are_as_predicted() {
    let mut client = NURSERY.session(107, Limits::default());
    let a = client.floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let turned = client.call(
        "aten::neg",
        &[Arg::T(a.clone())],
        &[Out::Strided(F32, vec![2, 3], vec![1, 2])],
    );
    assert_eq!(
        client.fetch_floats(&turned[0]),
        [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    );
    // A result that shares its argument's memory, though a new one was predicted, is copied.
    let alias = client.call(
        "aten::alias",
        &[Arg::T(a.clone())],
        &[Out::Fresh(F32, vec![2, 3])],
    );
    client.call("aten::zero_", &[Arg::W(a)], &[Out::Alias(0)]);
    assert_eq!(
        client.fetch_floats(&alias[0]),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    );
}

#[test]
fn a_wrong_prediction_names_both_shapes() {
    let mut client = NURSERY.session(108, Limits::default());
    let a = client.floats(&[2], &[1.0, 2.0]);
    let sum = client.call("aten::neg", &[Arg::T(a)], &[Out::Fresh(F32, vec![3])]);
    let (code, message) = client.fault_of(&sum[0]);
    assert_eq!(code, Code::Operator);
    assert!(
        message.contains("[2]") && message.contains("[3]"),
        "{message}"
    );
}

#[test]
fn errors_have_their_class_and_no_backtrace() {
    let mut client = NURSERY.session(109, Limits::default());
    let a = client.floats(&[2], &[1.0, 2.0]);
    let far = client.ints(&[1], &[5]);
    let taken = client.call(
        "aten::index.Tensor",
        &[Arg::T(a.clone()), Arg::List(vec![Arg::T(far)])],
        &[Out::Fresh(F32, vec![1])],
    );
    let (code, message) = client.fault_of(&taken[0]);
    assert_eq!(code, Code::Index, "{message}");
    assert!(!message.contains("frame #"), "{message}");
    let product = client.call(
        "aten::mm",
        &[Arg::T(a.clone()), Arg::T(a.clone())],
        &[Out::Fresh(F32, vec![1])],
    );
    assert_eq!(client.fault_of(&product[0]).0, Code::Operator);
    // What depends on a failure has the same cause; the rest lives.
    let after = client.call(
        "aten::neg",
        &[Arg::T(product[0].clone())],
        &[Out::Fresh(F32, vec![1])],
    );
    assert_eq!(client.fault_of(&after[0]).0, Code::Operator);
    assert_eq!(client.fetch_floats(&a), [1.0, 2.0]);
    let print = client.call(
        "aten::from_file",
        &[Arg::Str("/etc/passwd")],
        &[Out::Fresh(F32, vec![1])],
    );
    assert_eq!(client.fault_of(&print[0]).0, Code::NotAllowed);
    let odd = client.call("aten::neg", &[Arg::Str("x")], &[Out::Fresh(F32, vec![1])]);
    let (code, message) = client.fault_of(&odd[0]);
    assert_eq!(code, Code::Operator);
    assert!(message.contains("self"), "{message}");
}

#[test]
fn a_view_past_its_storage_is_refused() {
    let mut client = NURSERY.session(110, Limits::default());
    let a = client.floats(&[4], &[1.0; 4]);
    for (offset, sizes, strides) in [
        (0, vec![5], vec![1]),
        (1, vec![4], vec![1]),
        (-1, vec![1], vec![1]),
        (0, vec![2], vec![-1]),
        (0, vec![-1], vec![1]),
        (0, vec![i64::MAX, i64::MAX], vec![1, 1]),
        (0, vec![2, 2], vec![i64::MAX, i64::MAX]),
        (i64::MAX, vec![1], vec![1]),
    ] {
        let view = Tensor {
            offset,
            sizes: sizes.clone(),
            strides,
            ..a.clone()
        };
        let made = client.call(
            "aten::neg",
            &[Arg::T(view.clone())],
            &[Out::Fresh(F32, vec![1])],
        );
        assert_eq!(client.fault_of(&made[0]).0, Code::Protocol, "{view:?}");
        assert_ne!(client.fault_of(&view).1, "", "{view:?}");
    }
    let odd = Tensor {
        dtype: 99,
        ..a.clone()
    };
    let made = client.call("aten::neg", &[Arg::T(odd)], &[Out::Fresh(F32, vec![1])]);
    assert_eq!(client.fault_of(&made[0]).0, Code::Protocol);
    assert_eq!(client.fetch_floats(&a), [1.0; 4]);
}

#[test]
fn synchronous_results_are_described() {
    let mut client = NURSERY.session(111, Limits::default());
    let a = client.floats(&[4], &[0.0, 1.0, 0.0, 2.0]);
    let (metas, first) = client
        .call_sync("aten::nonzero", &[Arg::T(a.clone())])
        .unwrap();
    assert_eq!(metas.out_skeleton, [out::FRESH, I64, 2]);
    let (sizes, strides) = metas.out_params.split_at(2);
    assert_eq!(sizes, [2, 1]);
    let found = Tensor {
        storage: first,
        dtype: I64,
        offset: 0,
        sizes: sizes.to_vec(),
        strides: strides.to_vec(),
    };
    let bytes = client.fetch(&found).unwrap();
    assert_eq!(bytes, [1_i64, 3].map(i64::to_le_bytes).concat());
    let (metas, _) = client
        .call_sync("aten::equal", &[Arg::T(a.clone()), Arg::T(a.clone())])
        .unwrap();
    assert_eq!(
        (metas.value_skeleton, metas.out_skeleton),
        (vec![tag::SCALAR_TRUE], vec![])
    );
    let (metas, _) = client
        .call_sync("aten::mul_.Scalar", &[Arg::W(a.clone()), Arg::Scalar(2.0)])
        .unwrap();
    assert_eq!(metas.out_skeleton, [out::ALIAS, 0]);
    assert!(
        client
            .call_sync("aten::mm", &[Arg::T(a.clone()), Arg::T(a)])
            .is_err()
    );
}

#[test]
fn bulk_is_used_in_place_and_given_back() {
    let mut client = NURSERY.session(112, Limits::default());
    let values: Vec<f32> = (0..1 << 20).map(|n| n as f32).collect();
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let a = client.upload(F32, &[1 << 20], &bytes);
    let b = client.call(
        "aten::neg",
        &[Arg::T(a.clone())],
        &[Out::Fresh(F32, vec![1 << 20])],
    );
    let back = client.fetch_floats(&b[0]);
    assert!(back.iter().zip(&values).all(|(got, sent)| *got == -sent));
    client.call(
        "aten::add_.Scalar",
        &[Arg::W(a.clone()), Arg::Scalar(1.0)],
        &[Out::Alias(0)],
    );
    assert_eq!(client.fetch_floats(&a)[7], 8.0);
    assert_eq!(client.executor.memory.places(), 1);
    client.free(&a);
    client.barrier().unwrap();
    // The place may be given back right after the answer.
    while client.places_free == 0 {
        client.receive().unwrap();
    }
    assert_eq!(client.executor.memory.places(), 0);
    let c = client.upload(F32, &[4], &[0; 16]);
    assert_eq!(client.fetch_floats(&c), [0.0; 4]);
}

fn attention_outs(heads: i64, queries: i64, width: i64) -> Vec<Out> {
    vec![
        Out::Fresh(F32, vec![1, heads, queries, width]),
        Out::Fresh(F32, vec![1, heads, queries]),
        Out::None,
        Out::None,
        Out::None,
        Out::None,
        Out::Fresh(I64, vec![]),
        Out::Fresh(I64, vec![]),
        Out::None,
    ]
}

/// softmax(q k^T * scale + mask) v, one head, in f64.
fn attend(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    width: usize,
    allowed: impl Fn(usize, usize) -> bool,
) -> Vec<f32> {
    let (queries, keys) = (q.len() / width, k.len() / width);
    let mut out = Vec::new();
    for i in 0..queries {
        let score = |j: usize| -> f64 {
            let dot: f64 = (0..width)
                .map(|d| f64::from(q[i * width + d]) * f64::from(k[j * width + d]))
                .sum();
            dot / (width as f64).sqrt()
        };
        let weights: Vec<f64> = (0..keys)
            .map(|j| if allowed(i, j) { score(j).exp() } else { 0.0 })
            .collect();
        let total: f64 = weights.iter().sum();
        for d in 0..width {
            let sum: f64 = (0..keys)
                .map(|j| weights[j] * f64::from(v[j * width + d]))
                .sum();
            out.push((sum / total) as f32);
        }
    }
    out
}

#[test]
fn attention_as_the_client_records_it() {
    let mut client = NURSERY.session(113, Limits::default());
    let (heads, queries, width) = (1_i64, 5_i64, 8_i64);
    let count = (queries * width) as usize;
    let noise = |salt: usize| -> Vec<f32> {
        (0..count)
            .map(|n| ((n * 37 + salt * 101) % 29) as f32 / 14.0 - 1.0)
            .collect()
    };
    let (q, k, v) = (noise(1), noise(2), noise(3));
    let sizes = [1, heads, queries, width];
    let (tq, tk, tv) = (
        client.floats(&sizes, &q),
        client.floats(&sizes, &k),
        client.floats(&sizes, &v),
    );
    let mask_of = |i: usize, j: usize| if j <= i { 0.0 } else { f32::NEG_INFINITY };
    let mask: Vec<f32> = (0..5)
        .flat_map(|i| (0..5).map(move |j| mask_of(i, j)))
        .collect();
    let mask = client.floats(&[1, 1, 5, 5], &mask);
    let plain = attend(&q, &k, &v, 8, |_, _| true);
    let causal = attend(&q, &k, &v, 8, |i, j| j <= i);
    for (bias, is_causal, wanted) in [
        (Arg::None, false, &plain),
        (Arg::None, true, &causal),
        (Arg::T(mask), false, &causal),
    ] {
        let made = client.call(
            "aten::_scaled_dot_product_fused_attention_overrideable",
            &[
                Arg::T(tq.clone()),
                Arg::T(tk.clone()),
                Arg::T(tv.clone()),
                bias,
                Arg::Double(0.0),
                Arg::Bool(is_causal),
                Arg::Bool(false),
                Arg::None,
            ],
            &attention_outs(heads, queries, width),
        );
        let got = client.fetch_floats(&made[0]);
        assert!(
            got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5),
            "{got:?}\n{wanted:?}"
        );
    }
    assert!(client.faults.is_empty());
}

#[test]
fn booleans_and_masks() {
    let mut client = NURSERY.session(114, Limits::default());
    let a = client.floats(&[3], &[1.0, -1.0, 2.0]);
    let positive = client.call(
        "aten::gt.Scalar",
        &[Arg::T(a.clone()), Arg::Scalar(0.0)],
        &[Out::Fresh(BOOL, vec![3])],
    );
    assert_eq!(client.fetch(&positive[0]).unwrap(), [1, 0, 1]);
    let kept = client.call(
        "aten::where.self",
        &[
            Arg::T(positive[0].clone()),
            Arg::T(a),
            Arg::Wrapped(F64, 0.0),
        ],
        &[Out::Fresh(F32, vec![3])],
    );
    assert_eq!(client.fetch_floats(&kept[0]), [1.0, 0.0, 2.0]);
    assert_eq!(row_major(&[2, 0, 3]), [3, 3, 1]);
}

#[test]
fn results_that_are_several_arguments_are_held_while_they_are_written() {
    let mut client = NURSERY.session(760, Limits::default());
    let a = client.floats(&[2, 2], &[2.0, 0.0, 0.0, 4.0]);
    for turn in 0..20 {
        let inverse = client.floats(&[2, 2], &[0.0; 4]);
        let info = client.inline(3, &[], &[0; 4]);
        client.call(
            "aten::linalg_inv_ex.inverse",
            &[
                Arg::T(a.clone()),
                Arg::Bool(false),
                Arg::W(inverse.clone()),
                Arg::W(info),
            ],
            &[Out::Alias(1), Out::Alias(2)],
        );
        let inverse = client.fetch_floats(&inverse);
        assert_eq!(inverse, [0.5, 0.0, 0.0, 0.25], "turn {turn}");
    }
}

#[test]
fn what_a_kernel_trusts_is_checked_and_the_session_lives() {
    let mut client = NURSERY.session(761, Limits::default());
    let a = client.floats(&[4], &[1.0; 4]);
    let one = client.floats(&[1], &[1.0]);
    let lengths = client.ints(&[1], &[1_000_000_000]);
    let args = [
        Arg::T(one.clone()),
        Arg::T(one),
        Arg::T(a.clone()),
        Arg::Str("sum"),
        Arg::T(lengths),
        Arg::None,
        Arg::Int(0),
        Arg::None,
    ];
    let outs = [Out::Fresh(F32, vec![4])];
    let gradient = client.call("aten::_segment_reduce_backward", &args, &outs);
    let (code, message) = client.fault_of(&gradient[0]);
    assert_eq!(code, Code::Value);
    assert!(message.contains("sums lengths"), "{message}");
    // A raw view past the storage is no operator that is known.
    let raw = [Arg::T(a.clone()), Arg::Ints(vec![64]), Arg::Ints(vec![1])];
    let outs = [Out::Fresh(F32, vec![64])];
    let behind = client.call("aten::_reshape_alias", &raw, &outs);
    assert_eq!(client.fault_of(&behind[0]).0, Code::NotAllowed);
    assert_eq!(client.fetch_floats(&a), [1.0; 4]);
}
