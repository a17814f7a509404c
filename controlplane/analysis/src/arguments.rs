//! The arguments of a recorded call, with the numbers filled in.

use genie_session::WireError;
use genie_session::skeleton::{self, Argument};

/// A tensor argument or result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensor {
    /// `genie_session::skeleton::flag` bits.
    pub flags: u8,
    /// c10 `ScalarType`.
    pub dtype: u8,
    /// In elements.
    pub offset: i64,
    /// Sizes.
    pub dims: Vec<i64>,
    /// Strides in elements.
    pub strides: Vec<i64>,
}

impl Tensor {
    /// Elements; 1 for a 0-dimensional tensor. Saturates.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dims.iter().fold(1_u64, |elements, &size| {
            elements.saturating_mul(u64::try_from(size).unwrap_or(0))
        })
    }

    /// Bytes of its elements. Saturates.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let element = genie_session::skeleton::element_bytes(self.dtype).unwrap_or(0);
        self.elements().saturating_mul(element)
    }

    /// Size `n` from the end, 1 where there is none.
    #[must_use]
    pub fn dim_from_end(&self, n: usize) -> i64 {
        self.dims.iter().rev().nth(n).copied().unwrap_or(1)
    }
}

/// What a skeleton and its params say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Tensors in order, lists flattened.
    pub tensors: Vec<Tensor>,
    /// Integers and lists of them, in order.
    pub integers: Vec<Vec<i64>>,
    /// Booleans, in order.
    pub booleans: Vec<bool>,
    /// A random operator.
    pub random: bool,
}

impl Arguments {
    /// Reads an argument skeleton and its params.
    ///
    /// # Errors
    /// What is not of the grammar, or has other params than the skeleton needs.
    pub fn read(skeleton: &[u8], params: &[i64]) -> Result<Self, WireError> {
        let mut arguments = Self::default();
        let mut params = params;
        for item in skeleton::arguments(skeleton) {
            let item = item?;
            let (taken, rest) = params
                .split_at_checked(item.counts().params)
                .ok_or(WireError::Truncated)?;
            params = rest;
            match item {
                Argument::Tensor { flags, dtype, ndim } => {
                    let (offset, sides) = taken.split_first().ok_or(WireError::Truncated)?;
                    let (dims, strides) = sides.split_at(usize::from(ndim));
                    arguments.tensors.push(Tensor {
                        flags,
                        dtype,
                        offset: *offset,
                        dims: dims.to_vec(),
                        strides: strides.to_vec(),
                    });
                }
                Argument::Int | Argument::IntList { .. } => arguments.integers.push(taken.to_vec()),
                Argument::True => arguments.booleans.push(true),
                Argument::False => arguments.booleans.push(false),
                Argument::Generator | Argument::Seed => arguments.random = true,
                Argument::None
                | Argument::ScalarTensor { .. }
                | Argument::Enum { .. }
                | Argument::Double
                | Argument::ScalarInt
                | Argument::ScalarDouble
                | Argument::ScalarTrue
                | Argument::ScalarFalse
                | Argument::ScalarComplex
                | Argument::String { .. }
                | Argument::DoubleList { .. }
                | Argument::BoolList { .. }
                | Argument::List { .. }
                | Argument::Device { .. }
                | Argument::DefaultDtype { .. } => {}
            }
        }
        if params.is_empty() {
            Ok(arguments)
        } else {
            Err(WireError::Malformed("more numbers than the arguments take"))
        }
    }
}
