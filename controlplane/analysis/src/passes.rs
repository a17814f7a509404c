//! Runs of a model or of a part of it, one after the other: where they begin, and what each is.

use super::lineage::Kinds;

/// What kind of pass an operator is in, as the attention next to it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pass {
    #[default]
    Unknown,
    Prefill,
    Decode,
    Encode,
}

/// What an attention says of its pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    /// It keeps keys: it is this.
    Kept(Pass),
    /// It looks back only.
    Causal,
    /// It looks to both sides.
    Both,
    Nothing,
}

/// What input a pass begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Text,
    Vision,
    Audio,
}

impl Stream {
    pub(crate) fn of(senses: Kinds) -> Option<Self> {
        match senses {
            _ if senses.has(Kinds::TEXT) => Some(Self::Text),
            _ if senses.has(Kinds::VISION) => Some(Self::Vision),
            _ if senses.has(Kinds::AUDIO) => Some(Self::Audio),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    prefill: u32,
    decode: u32,
    causal: u32,
    both: u32,
    /// Tokens of each row that it began with; zero for what is no text.
    tokens: i64,
    is_under_way: bool,
}

/// Runs of a model or of a part of it, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passes {
    all: Vec<Votes>,
    /// The last of each stream.
    last: [Option<usize>; 3],
}

impl Passes {
    /// Input comes in: something new begins, unless nothing was done with the last one yet.
    pub(crate) fn root(&mut self, stream: Option<Stream>, tokens: i64) {
        let Some(stream) = stream else { return };
        let last = self.last[stream as usize].map(|at| self.all[at].is_under_way);
        if last != Some(false) {
            self.last[stream as usize] = Some(self.all.len());
            self.all.push(Votes {
                tokens: if stream == Stream::Text { tokens } else { 0 },
                ..Votes::default()
            });
        }
    }

    pub(crate) fn here(&mut self, stream: Stream, is_heavy: bool) -> Option<usize> {
        let at = self.last[stream as usize]?;
        self.all[at].is_under_way |= is_heavy;
        Some(at)
    }

    pub(crate) fn vote(&mut self, at: usize, vote: Vote) {
        let votes = &mut self.all[at];
        match vote {
            Vote::Kept(Pass::Decode) => votes.decode += 1,
            Vote::Kept(_) => votes.prefill += 1,
            Vote::Causal => votes.causal += 1,
            Vote::Both => votes.both += 1,
            Vote::Nothing => {}
        }
    }

    pub(crate) fn is(&self, at: usize, predicts: bool) -> Pass {
        let votes = self.all[at];
        match () {
            () if votes.decode > votes.prefill => Pass::Decode,
            () if votes.prefill > 0 || votes.causal > 0 => Pass::Prefill,
            () if votes.both > 0 => Pass::Encode,
            () if predicts && votes.tokens == 1 => Pass::Decode,
            () if predicts && votes.tokens > 1 => Pass::Prefill,
            () => Pass::Unknown,
        }
    }
}
