//! The kernels that libtorch lacks on the CPU, against a plain computation in f64.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use common::{Arg, Client, F32, I64, NURSERY, Out, Tensor};
use genie_gpudev::Limits;

fn noise(count: usize, salt: usize) -> Vec<f32> {
    (0..count)
        .map(|n| ((n * 37 + salt * 101) % 29) as f32 / 14.0 - 1.0)
        .collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// One head: softmax(q k^T / sqrt(width) + bias) v, in f64.
fn attend(q: &[f64], k: &[f64], v: &[f64], bias: &[f64], width: usize) -> Vec<f64> {
    let (queries, keys) = (q.len() / width, k.len() / width);
    let mut out = Vec::new();
    for i in 0..queries {
        let weight = |j: usize| {
            let dot: f64 = (0..width)
                .map(|d| q[i * width + d] * k[j * width + d])
                .sum();
            (dot / (width as f64).sqrt() + bias[i * keys + j]).exp()
        };
        let total: f64 = (0..keys).map(weight).sum();
        for d in 0..width {
            out.push((0..keys).map(|j| weight(j) * v[j * width + d]).sum::<f64>() / total);
        }
    }
    out
}

/// The gradient of `f . grad` at `x`, by central differences.
fn gradient(x: &[f64], grad: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let step = 1e-5;
    let along = |at: usize, by: f64| {
        let mut moved = x.to_vec();
        moved[at] += by;
        f(&moved).iter().zip(grad).map(|(a, b)| a * b).sum::<f64>()
    };
    (0..x.len())
        .map(|at| (along(at, step) - along(at, -step)) / (2.0 * step))
        .collect()
}

fn assert_close(got: &[f32], wanted: &[f64], within: f64, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (a, b) in got.iter().zip(wanted) {
        assert!(
            (f64::from(*a) - b).abs() < within,
            "{what}: {got:?}\n{wanted:?}"
        );
    }
}

const QUERIES: usize = 6;
const WIDTH: usize = 8;
const SIZES: [i64; 4] = [1, 1, QUERIES as i64, WIDTH as i64];

fn forward(
    client: &mut Client,
    qkv: &[Tensor],
    bias: Arg,
    dropout: f64,
    causal: bool,
) -> Vec<Tensor> {
    client.call(
        "aten::_scaled_dot_product_fused_attention_overrideable",
        &[
            Arg::T(qkv[0].clone()),
            Arg::T(qkv[1].clone()),
            Arg::T(qkv[2].clone()),
            bias,
            Arg::Double(dropout),
            Arg::Bool(causal),
            Arg::Bool(false),
            Arg::None,
            Arg::Seed(11),
        ],
        &[
            Out::Fresh(F32, SIZES.to_vec()),
            Out::Fresh(F32, SIZES[..3].to_vec()),
            Out::None,
            Out::None,
            // The two integers among the results have no item.
            Out::Fresh(I64, vec![]),
            Out::Fresh(I64, vec![]),
            Out::None,
        ],
    )
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the operator")]
fn backward(
    client: &mut Client,
    grad: &Tensor,
    qkv: &[Tensor],
    bias: Arg,
    outs: &[Tensor],
    dropout: f64,
    causal: bool,
    bias_sizes: Option<Vec<i64>>,
) -> Vec<Tensor> {
    let t = |tensor: &Tensor| Arg::T(tensor.clone());
    let mut predicted = vec![Out::Fresh(F32, SIZES.to_vec()); 3];
    let bias_wanted = bias_sizes.is_some();
    predicted.push(bias_sizes.map_or(Out::None, |sizes| Out::Fresh(F32, sizes)));
    client.call(
        "aten::_scaled_dot_product_fused_attention_overrideable_backward",
        &[
            t(grad),
            t(&qkv[0]),
            t(&qkv[1]),
            t(&qkv[2]),
            bias,
            Arg::Bools(vec![true, true, true, bias_wanted]),
            t(&outs[0]),
            t(&outs[1]),
            Arg::None,
            Arg::None,
            Arg::Int(QUERIES as i64),
            Arg::Int(QUERIES as i64),
            Arg::Double(dropout),
            Arg::Bool(causal),
            t(&outs[2]),
            t(&outs[3]),
            Arg::None,
        ],
        &predicted,
    )
}

#[test]
fn attention_and_its_gradients() {
    let mut client = NURSERY.session(400, Limits::default());
    let count = QUERIES * WIDTH;
    let [q, k, v, grad] = [1, 2, 3, 4].map(|salt| noise(count, salt));
    let [wq, wk, wv, wgrad] = [&q, &k, &v, &grad].map(|values| wide(values));
    let tensors: Vec<Tensor> = [&q, &k, &v]
        .map(|values| client.floats(&SIZES, values))
        .into_iter()
        .collect();
    let tgrad = client.floats(&SIZES, &grad);
    let zero = vec![0.0; QUERIES * QUERIES];
    let causal: Vec<f64> = (0..QUERIES * QUERIES)
        .map(|n| {
            if n % QUERIES <= n / QUERIES {
                0.0
            } else {
                f64::NEG_INFINITY
            }
        })
        .collect();
    let soft = wide(&noise(QUERIES * QUERIES, 5));
    let square = [1, 1, QUERIES as i64, QUERIES as i64];
    for (name, bias, is_causal, passed, bias_wanted) in [
        ("plain", &zero, false, false, false),
        ("causal", &causal, true, false, false),
        ("mask of -inf", &causal, false, true, false),
        ("bias", &soft, false, true, false),
        ("bias with a gradient", &soft, false, true, true),
    ] {
        let narrow: Vec<f32> = bias.iter().map(|&value| value as f32).collect();
        let tbias = client.floats(&square, &narrow);
        let arg = || {
            if passed {
                Arg::T(tbias.clone())
            } else {
                Arg::None
            }
        };
        let outs = forward(&mut client, &tensors, arg(), 0.0, is_causal);
        let got = client.fetch_floats(&outs[0]);
        assert_close(&got, &attend(&wq, &wk, &wv, bias, WIDTH), 1e-5, name);
        let bias_sizes = bias_wanted.then(|| square.to_vec());
        let grads = backward(
            &mut client,
            &tgrad,
            &tensors,
            arg(),
            &outs,
            0.0,
            is_causal,
            bias_sizes,
        );
        let wanted = [
            gradient(&wq, &wgrad, |q| attend(q, &wk, &wv, bias, WIDTH)),
            gradient(&wk, &wgrad, |k| attend(&wq, k, &wv, bias, WIDTH)),
            gradient(&wv, &wgrad, |v| attend(&wq, &wk, v, bias, WIDTH)),
        ];
        for (tensor, wanted) in grads.iter().zip(&wanted) {
            assert_close(&client.fetch_floats(tensor), wanted, 1e-5, name);
        }
        if bias_wanted {
            let wanted = gradient(bias, &wgrad, |bias| attend(&wq, &wk, &wv, bias, WIDTH));
            assert_close(&client.fetch_floats(&grads[3]), &wanted, 1e-5, name);
        }
    }
    assert!(client.faults.is_empty(), "{:?}", client.faults);
}

#[test]
fn dropout_in_attention_is_the_same_forth_and_back() {
    let mut client = NURSERY.session(401, Limits::default());
    let count = QUERIES * WIDTH;
    let tensors: Vec<Tensor> = [1, 2, 3]
        .map(|salt| client.floats(&SIZES, &noise(count, salt)))
        .into_iter()
        .collect();
    let ones = client.floats(&SIZES, &vec![1.0; count]);
    let outs = forward(&mut client, &tensors, Arg::None, 0.5, false);
    let again = forward(&mut client, &tensors, Arg::None, 0.5, false);
    let out = client.fetch_floats(&outs[0]);
    assert_eq!(out, client.fetch_floats(&again[0]));
    // The output is linear in v: v . d(sum out)/dv is the sum of the output itself.
    let grads = backward(
        &mut client,
        &ones,
        &tensors,
        Arg::None,
        &outs,
        0.5,
        false,
        None,
    );
    let dv = client.fetch_floats(&grads[2]);
    let v = noise(count, 3);
    let along: f64 = dv.iter().zip(&v).map(|(a, b)| f64::from(a * b)).sum();
    let sum: f64 = wide(&out).iter().sum();
    assert!((along - sum).abs() < 1e-4, "{along} {sum}");
    assert!(client.faults.is_empty(), "{:?}", client.faults);
}

#[test]
fn grouped_queries_share_keys() {
    let mut client = NURSERY.session(402, Limits::default());
    let q = client.floats(&[1, 2, 3, 4], &noise(24, 1));
    let (k, v) = (
        client.floats(&[1, 1, 3, 4], &noise(12, 2)),
        client.floats(&[1, 1, 3, 4], &noise(12, 3)),
    );
    let made = client.call(
        "aten::_scaled_dot_product_fused_attention_overrideable",
        &[
            Arg::T(q),
            Arg::T(k),
            Arg::T(v),
            Arg::None,
            Arg::Double(0.0),
            Arg::Bool(false),
        ],
        &[
            Out::Fresh(F32, vec![1, 2, 3, 4]),
            Out::None,
            Out::None,
            Out::None,
            Out::None,
            Out::None,
            Out::None,
        ],
    );
    let got = client.fetch_floats(&made[0]);
    let (q, k, v) = (
        wide(&noise(24, 1)),
        wide(&noise(12, 2)),
        wide(&noise(12, 3)),
    );
    let heads = [&q[..12], &q[12..]]
        .map(|q| attend(q, &k, &v, &[0.0; 9], 4))
        .concat();
    assert_close(&got, &heads, 1e-5, "grouped");
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// hy then cy of one row.
fn lstm(gates: &[f64], cx: &[f64]) -> Vec<f64> {
    let n = cx.len();
    let cy: Vec<f64> = (0..n)
        .map(|i| sigmoid(gates[n + i]) * cx[i] + sigmoid(gates[i]) * gates[2 * n + i].tanh())
        .collect();
    let hy = (0..n).map(|i| sigmoid(gates[3 * n + i]) * cy[i].tanh());
    hy.chain(cy.iter().copied()).collect()
}

#[test]
fn lstm_cells_and_their_gradients() {
    let mut client = NURSERY.session(403, Limits::default());
    let n = 3_usize;
    let [a, b, cx, bias] = [
        noise(4 * n, 1),
        noise(4 * n, 2),
        noise(n, 3),
        noise(4 * n, 4),
    ];
    let (row, wide_row) = ([1, n as i64], [1, 4 * n as i64]);
    let (ta, tb) = (client.floats(&wide_row, &a), client.floats(&wide_row, &b));
    let tcx = client.floats(&row, &cx);
    let tbias = client.floats(&[4 * n as i64], &bias);
    let outs = client.call(
        "aten::_thnn_fused_lstm_cell",
        &[
            Arg::T(ta),
            Arg::T(tb),
            Arg::T(tcx.clone()),
            Arg::T(tbias.clone()),
            Arg::T(tbias),
        ],
        &[
            Out::Fresh(F32, row.to_vec()),
            Out::Fresh(F32, row.to_vec()),
            Out::Fresh(F32, wide_row.to_vec()),
        ],
    );
    let gates: Vec<f64> = (0..4 * n)
        .map(|i| f64::from(a[i]) + f64::from(b[i]) + 2.0 * f64::from(bias[i]))
        .collect();
    let wanted = lstm(&gates, &wide(&cx));
    assert_close(&client.fetch_floats(&outs[0]), &wanted[..n], 1e-6, "hy");
    assert_close(&client.fetch_floats(&outs[1]), &wanted[n..], 1e-6, "cy");
    let (ghy, gcy) = (noise(n, 5), noise(n, 6));
    let (tghy, tgcy) = (client.floats(&row, &ghy), client.floats(&row, &gcy));
    let grads = client.call(
        "aten::_thnn_fused_lstm_cell_backward_impl",
        &[
            Arg::T(tghy),
            Arg::T(tgcy),
            Arg::T(tcx),
            Arg::T(outs[1].clone()),
            Arg::T(outs[2].clone()),
            Arg::Bool(true),
        ],
        &[
            Out::Fresh(F32, wide_row.to_vec()),
            Out::Fresh(F32, row.to_vec()),
            Out::Fresh(F32, vec![4 * n as i64]),
        ],
    );
    let grad: Vec<f64> = wide(&ghy).into_iter().chain(wide(&gcy)).collect();
    let dgates = gradient(&gates, &grad, |gates| lstm(gates, &wide(&cx)));
    let dcx = gradient(&wide(&cx), &grad, |cx| lstm(&gates, cx));
    assert_close(&client.fetch_floats(&grads[0]), &dgates, 1e-5, "gates");
    assert_close(&client.fetch_floats(&grads[1]), &dcx, 1e-5, "cx");
    assert_close(&client.fetch_floats(&grads[2]), &dgates, 1e-5, "bias");
    assert!(client.faults.is_empty(), "{:?}", client.faults);
}

fn gru(from_input: &[f64], from_hidden: &[f64], hx: &[f64]) -> Vec<f64> {
    let n = hx.len();
    (0..n)
        .map(|i| {
            let reset = sigmoid(from_input[i] + from_hidden[i]);
            let update = sigmoid(from_input[n + i] + from_hidden[n + i]);
            let fresh = (from_input[2 * n + i] + reset * from_hidden[2 * n + i]).tanh();
            fresh + update * (hx[i] - fresh)
        })
        .collect()
}

#[test]
fn gru_cells_and_their_gradients() {
    let mut client = NURSERY.session(404, Limits::default());
    let n = 3_usize;
    let [a, b, hx, ghy] = [noise(3 * n, 1), noise(3 * n, 2), noise(n, 3), noise(n, 4)];
    let (row, wide_row) = (vec![1, n as i64], vec![1, 3 * n as i64]);
    let (ta, tb) = (client.floats(&wide_row, &a), client.floats(&wide_row, &b));
    let (thx, tghy) = (client.floats(&row, &hx), client.floats(&row, &ghy));
    let outs = client.call(
        "aten::_thnn_fused_gru_cell",
        &[Arg::T(ta), Arg::T(tb), Arg::T(thx), Arg::None, Arg::None],
        &[
            Out::Fresh(F32, row.clone()),
            Out::Fresh(F32, vec![1, 5 * n as i64]),
        ],
    );
    let [wa, wb, whx, wghy] = [&a, &b, &hx, &ghy].map(|values| wide(values));
    assert_close(
        &client.fetch_floats(&outs[0]),
        &gru(&wa, &wb, &whx),
        1e-6,
        "hy",
    );
    let grads = client.call(
        "aten::_thnn_fused_gru_cell_backward",
        &[Arg::T(tghy), Arg::T(outs[1].clone()), Arg::Bool(false)],
        &[
            Out::Fresh(F32, wide_row.clone()),
            Out::Fresh(F32, wide_row),
            Out::Fresh(F32, row),
            Out::None,
            Out::None,
        ],
    );
    let wanted = [
        gradient(&wa, &wghy, |a| gru(a, &wb, &whx)),
        gradient(&wb, &wghy, |b| gru(&wa, b, &whx)),
        gradient(&whx, &wghy, |hx| gru(&wa, &wb, hx)),
    ];
    for (tensor, wanted) in grads.iter().zip(&wanted) {
        assert_close(&client.fetch_floats(tensor), wanted, 1e-5, "gru");
    }
    assert!(client.faults.is_empty(), "{:?}", client.faults);
}
