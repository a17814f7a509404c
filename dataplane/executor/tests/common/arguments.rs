//! Arguments and results of operators, as they are written into records.

use genie_session::skeleton::{flag, out, tag};

/// A tensor as the client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub storage: u64,
    pub dtype: u8,
    pub offset: i64,
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
}

pub fn row_major(sizes: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; sizes.len()];
    for at in (0..sizes.len().saturating_sub(1)).rev() {
        strides[at] = strides[at + 1] * sizes[at + 1].max(1);
    }
    strides
}

/// One argument.
#[derive(Clone, Debug)]
pub enum Arg {
    None,
    T(Tensor),
    /// A tensor that is written.
    W(Tensor),
    Int(i64),
    Ints(Vec<i64>),
    Enum(i8),
    Double(f64),
    Bool(bool),
    Bools(Vec<bool>),
    Scalar(f64),
    ScalarInt(i64),
    /// A wrapped number.
    Wrapped(u8, f64),
    Str(&'static str),
    List(Vec<Arg>),
    Device,
    Generator(i64),
    Seed(i64),
}

/// What is predicted of one result.
#[derive(Clone, Debug)]
pub enum Out {
    None,
    Fresh(u8, Vec<i64>),
    Strided(u8, Vec<i64>, Vec<i64>),
    Alias(u8),
    List(Vec<Out>),
}

#[derive(Default)]
pub struct Encoded {
    pub skeleton: Vec<u8>,
    pub storages: Vec<u64>,
    pub params: Vec<i64>,
    pub data: Vec<i64>,
}

impl Encoded {
    pub fn push(&mut self, arg: &Arg) {
        match arg {
            Arg::None => self.skeleton.push(tag::NONE),
            Arg::T(tensor) => self.tensor(tensor, 0),
            Arg::W(tensor) => self.tensor(tensor, flag::WRITE),
            Arg::Int(value) => {
                self.skeleton.push(tag::INT);
                self.params.push(*value);
            }
            Arg::Ints(values) => {
                self.skeleton.push(tag::INT_LIST);
                self.skeleton.extend((values.len() as u16).to_le_bytes());
                self.params.extend(values);
            }
            Arg::Enum(value) => self.skeleton.extend([tag::ENUM, *value as u8]),
            Arg::Double(value) => self.number(tag::DOUBLE, value.to_bits()),
            Arg::Bool(value) => self
                .skeleton
                .push(if *value { tag::TRUE } else { tag::FALSE }),
            Arg::Bools(values) => {
                self.skeleton.push(tag::BOOL_LIST);
                self.skeleton.extend((values.len() as u16).to_le_bytes());
                self.skeleton
                    .extend(values.iter().map(|&value| u8::from(value)));
            }
            Arg::Scalar(value) => self.number(tag::SCALAR_DOUBLE, value.to_bits()),
            Arg::ScalarInt(value) => self.number(tag::SCALAR_INT, *value as u64),
            Arg::Wrapped(dtype, value) => {
                self.skeleton
                    .extend([tag::SCALAR_TENSOR, flag::WRAPPED, *dtype]);
                self.data.push(value.to_bits() as i64);
            }
            Arg::Str(text) => {
                self.skeleton.push(tag::STRING);
                self.skeleton.extend((text.len() as u16).to_le_bytes());
                self.skeleton.extend(text.as_bytes());
            }
            Arg::List(items) => {
                self.skeleton.push(tag::LIST);
                self.skeleton.extend((items.len() as u16).to_le_bytes());
                items.iter().for_each(|item| self.push(item));
            }
            Arg::Device => self.skeleton.extend([tag::DEVICE, 0]),
            Arg::Generator(seed) => self.number(tag::GENERATOR, *seed as u64),
            Arg::Seed(seed) => self.number(tag::SEED, *seed as u64),
        }
    }

    fn number(&mut self, tag: u8, bits: u64) {
        self.skeleton.push(tag);
        self.data.push(bits as i64);
    }

    pub fn tensor(&mut self, tensor: &Tensor, flags: u8) {
        self.skeleton
            .extend([tag::TENSOR, flags, tensor.dtype, tensor.sizes.len() as u8]);
        self.storages.push(tensor.storage);
        self.params.push(tensor.offset);
        self.params.extend(&tensor.sizes);
        self.params.extend(&tensor.strides);
    }
}

pub fn encode_out(
    outs: &[Out],
    tail: &mut Vec<u8>,
    numbers: &mut Vec<i64>,
    fresh: &mut Vec<Tensor>,
) {
    for item in outs {
        match item {
            Out::None => tail.push(out::NONE),
            Out::Alias(n) => tail.extend([out::ALIAS, *n]),
            Out::List(items) => {
                tail.push(out::LIST);
                tail.extend((items.len() as u16).to_le_bytes());
                encode_out(items, tail, numbers, fresh);
            }
            Out::Fresh(dtype, sizes) => {
                let strided = Out::Strided(*dtype, sizes.clone(), row_major(sizes));
                encode_out(&[strided], tail, numbers, fresh);
            }
            Out::Strided(dtype, sizes, strides) => {
                tail.extend([out::FRESH, *dtype, sizes.len() as u8]);
                numbers.extend(sizes);
                numbers.extend(strides);
                fresh.push(Tensor {
                    storage: 0,
                    dtype: *dtype,
                    offset: 0,
                    sizes: sizes.clone(),
                    strides: strides.clone(),
                });
            }
        }
    }
}
