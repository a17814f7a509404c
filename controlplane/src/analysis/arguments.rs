//! The arguments of a recorded call, with the numbers filled in.

use genie_session::WireError;
use genie_session::skeleton::tag;
use genie_session::varint::Reader;

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
    /// A random operator.
    pub random: bool,
}

impl Arguments {
    /// Reads an argument skeleton that was measured before, and its params.
    ///
    /// # Errors
    /// What does not fit.
    pub fn read(skeleton: &[u8], params: &[i64]) -> Result<Self, WireError> {
        let mut arguments = Self::default();
        let mut reader = Reader::new(skeleton);
        let mut params = params.iter().copied();
        while !reader.is_empty() {
            arguments.item(&mut reader, &mut params)?;
        }
        Ok(arguments)
    }

    fn item(
        &mut self,
        reader: &mut Reader<'_>,
        params: &mut impl Iterator<Item = i64>,
    ) -> Result<(), WireError> {
        let mut take = |n: usize| -> Result<Vec<i64>, WireError> {
            let taken: Vec<i64> = params.by_ref().take(n).collect();
            if taken.len() == n {
                Ok(taken)
            } else {
                Err(WireError::Truncated)
            }
        };
        match reader.u8()? {
            tag::TENSOR => {
                let (flags, dtype) = (reader.u8()?, reader.u8()?);
                let ndim = usize::from(reader.u8()?);
                let offset = take(1)?[0];
                let (dims, strides) = (take(ndim)?, take(ndim)?);
                self.tensors.push(Tensor {
                    flags,
                    dtype,
                    offset,
                    dims,
                    strides,
                });
            }
            tag::SCALAR_TENSOR => drop(reader.bytes(2)?),
            tag::INT => self.integers.push(take(1)?),
            tag::INT_LIST => {
                let n = usize::from(reader.u16()?);
                self.integers.push(take(n)?);
            }
            tag::ENUM | tag::DEVICE => drop(reader.u8()?),
            tag::STRING | tag::BOOL_LIST => {
                let n = usize::from(reader.u16()?);
                reader.bytes(n)?;
            }
            // Its items follow like any others.
            tag::LIST | tag::DOUBLE_LIST => drop(reader.u16()?),
            tag::GENERATOR | tag::SEED => self.random = true,
            _ => {}
        }
        Ok(())
    }
}
