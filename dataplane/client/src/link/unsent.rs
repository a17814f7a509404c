//! A frame on its way out.

use std::io::IoSlice;

/// What of a frame has not left yet: bytes of the stream, then bytes that travel apart from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsent<'a> {
    parts: [&'a [u8]; 3],
    apart: &'a [u8],
}

impl<'a> Unsent<'a> {
    pub(super) fn new(parts: [&'a [u8]; 3], apart: &'a [u8]) -> Self {
        Self { parts, apart }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stream_len() + self.apart.len()
    }

    /// Bytes inside the stream, and apart from it.
    #[must_use]
    pub fn lens(&self) -> (usize, usize) {
        (self.stream_len(), self.apart.len())
    }

    /// True if all has left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy, which depends on nobody's memory.
    #[must_use]
    pub fn keep(&self) -> Kept {
        Kept {
            stream: self.parts.concat(),
            apart: self.apart.to_vec(),
        }
    }

    pub(super) fn stream_len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// The stream's bytes, at most `max` of them.
    pub(super) fn stream(&self, max: usize) -> [&'a [u8]; 3] {
        let mut left = max;
        self.parts.map(|part| {
            let taken = &part[..part.len().min(left)];
            left -= taken.len();
            taken
        })
    }

    /// The stream's next `n` bytes have left.
    pub(super) fn stream_left(&mut self, mut n: usize) {
        for part in &mut self.parts {
            let gone = part.len().min(n);
            *part = &part[gone..];
            n -= gone;
        }
    }

    pub(super) fn apart(&self) -> &'a [u8] {
        self.apart
    }

    /// The next `n` bytes of those apart have left.
    pub(super) fn apart_left(&mut self, n: usize) {
        self.apart = &self.apart[n..];
    }
}

/// [`Unsent`] with memory of its own.
#[derive(Debug, Default)]
pub struct Kept {
    stream: Vec<u8>,
    apart: Vec<u8>,
}

impl Kept {
    /// What has not left.
    #[must_use]
    pub fn unsent(&self) -> Unsent<'_> {
        Unsent::new([&self.stream, &[], &[]], &self.apart)
    }

    /// Forgets what has left: so many bytes of both kinds have not ([`Unsent::lens`]).
    pub fn keep_last(&mut self, (stream, apart): (usize, usize)) {
        self.stream.drain(..self.stream.len() - stream);
        self.apart.drain(..self.apart.len() - apart);
    }
}

/// Slices for a system call; how many bytes they are.
pub(super) fn slices<'a>(parts: &[&'a [u8]; 3]) -> ([IoSlice<'a>; 3], usize) {
    let bytes = parts.iter().map(|part| part.len()).sum();
    (parts.map(IoSlice::new), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_is_taken_off_wherever_it_lay() {
        let mut unsent = Unsent::new([b"head", b"", b"body"], b"apart");
        assert_eq!(unsent.stream(6), [&b"head"[..], b"", b"bo"]);
        unsent.stream_left(6);
        assert_eq!((unsent.len(), unsent.stream_len()), (7, 2));
        let mut kept = unsent.keep();
        assert_eq!(kept.unsent().stream(9)[0], b"dy");
        kept.keep_last((0, 3));
        assert_eq!(kept.unsent().apart(), b"art");
        unsent.stream_left(2);
        unsent.apart_left(5);
        assert!(unsent.is_empty());
    }
}
