//! Bytes as hexadecimal digits, for tokens and secrets in lines of JSON.

use std::fmt::Write as _;

use anyhow::{Context, Result};

/// Two digits a byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Exactly `N` bytes.
pub fn decode<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let good = text.len() == 2 * N && text.is_ascii();
    for (at, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(2 * at..2 * at + 2).filter(|_| good);
        *byte = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .context("not a token of the right length")?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(encode(&[0, 0xab, 9]), "00ab09");
        assert_eq!(decode::<3>("00ab09").unwrap(), [0, 0xab, 9]);
        for bad in ["", "00ab0", "00ab099", "00ab0x", "00ab0é"] {
            assert!(decode::<3>(bad).is_err(), "{bad}");
        }
    }
}
