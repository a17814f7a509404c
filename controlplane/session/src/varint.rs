//! Variable-length integers: LEB128, with zigzag for signed values.

use crate::WireError;

/// Appends `value` in LEB128, 1 to 10 bytes.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` zigzag-encoded, so that small magnitudes stay small.
#[inline]
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// A cursor over bytes from a peer. Every read is bounds-checked.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// True when everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, WireError> {
        let (&first, rest) = self.bytes.split_first().ok_or(WireError::Truncated)?;
        self.bytes = rest;
        Ok(first)
    }

    /// The next two bytes, little-endian.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes([self.u8()?, self.u8()?]))
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer are left.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        if len > self.bytes.len() {
            return Err(WireError::Truncated);
        }
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Ok(head)
    }

    /// The next LEB128 integer.
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::Overlong`] past 64 bits.
    #[inline]
    pub fn var_u64(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(WireError::Overlong);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Overlong)
    }

    /// The next zigzag integer.
    ///
    /// # Errors
    /// As [`Reader::var_u64`].
    #[inline]
    pub fn var_i64(&mut self) -> Result<i64, WireError> {
        let raw = self.var_u64()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// The next LEB128 integer as a count no larger than `max`.
    ///
    /// # Errors
    /// As [`Reader::var_u64`], and [`WireError::TooMany`] past `max`.
    #[inline]
    pub fn count(&mut self, what: &'static str, max: usize) -> Result<usize, WireError> {
        let raw = self.var_u64()?;
        usize::try_from(raw)
            .ok()
            .filter(|&n| n <= max)
            .ok_or(WireError::TooMany {
                what,
                got: raw,
                max,
            })
    }
}
