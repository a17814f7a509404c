//! What a channel's reader holds: what came while nobody read, and what was asked for.

use std::collections::VecDeque;
use std::io;

use genie_channel::AppReceiver;

/// Bytes of the stream that nobody has read. A session's window keeps a node far below this.
const STASH_MAX: usize = 16 << 20;

/// What only the thread that reads touches.
pub(super) struct Inbound {
    pub(super) receiver: AppReceiver,
    /// Bytes of the stream that came while nobody read, from `at` on.
    pub(super) stash: Vec<u8>,
    pub(super) at: usize,
    /// Parts that were asked for, and what became of them.
    pub(super) coming: VecDeque<Coming>,
}

/// A part that was asked for.
pub(super) struct Coming {
    pub(super) place: u64,
    pub(super) outcome: Option<Result<(), String>>,
}

impl Inbound {
    /// What became of the part at `place`, once.
    pub(super) fn outcome_of(&mut self, place: u64) -> Option<Result<(), String>> {
        let is_done = |part: &Coming| part.place == place && part.outcome.is_some();
        let at = self.coming.iter().position(is_done)?;
        self.coming.remove(at)?.outcome
    }

    /// Keeps bytes for the next reader.
    pub(super) fn keep(stash: &mut Vec<u8>, at: &mut usize, bytes: &[u8]) -> io::Result<()> {
        stash.drain(..std::mem::take(at));
        if stash.len() + bytes.len() > STASH_MAX {
            return Err(invalid("the node says far more than it was asked"));
        }
        stash.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes kept bytes; how many.
    pub(super) fn unstash(&mut self, buffer: &mut [u8]) -> usize {
        let kept = &self.stash[self.at..];
        let n = kept.len().min(buffer.len());
        buffer[..n].copy_from_slice(&kept[..n]);
        self.at += n;
        if self.at == self.stash.len() {
            self.stash.clear();
            self.at = 0;
        }
        n
    }
}

/// What comes makes no sense.
pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
