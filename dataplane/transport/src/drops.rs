//! Why something that arrived was not used, each reason with its counter.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a frame, or one thing in it, was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The name as a metric's label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than a header, or than its header says.
    Truncated = "truncated",
    /// Not of this protocol.
    BadMagic = "bad_magic",
    /// Of a version that this end does not speak.
    BadVersion = "bad_version",
    /// For no connection of this endpoint.
    UnknownConnection = "unknown_connection",
    /// From before the connection was made anew.
    StaleEpoch = "stale_epoch",
    /// From an epoch that this end was not told of.
    FutureEpoch = "future_epoch",
    /// Our own frame, sent back to us.
    Reflected = "reflected",
    /// Sealed where a checksum is configured, or the reverse.
    WrongProtection = "wrong_protection",
    /// The header's tag does not fit: corrupt or forged.
    BadHeaderTag = "bad_header_tag",
    /// The data's tag does not fit: corrupt or forged.
    BadDataTag = "bad_data_tag",
    /// The packet number was seen before.
    Replay = "replay",
    /// The packet number is older than what is remembered.
    TooOld = "too_old",
    /// Authentic, but not to be understood: the peer is at fault.
    Malformed = "malformed",
    /// The connection is closed or dead.
    Closed = "closed",
    /// An acknowledgement of what was never sent.
    AckOfUnsent = "ack_of_unsent",
    /// More data than the receiver gave credit for.
    CreditOverrun = "credit_overrun",
    /// More holes in a grant than are remembered; the sender repeats it.
    HolesFull = "holes_full",
    /// More data wait for their verification than are remembered; the sender repeats it.
    UnverifiedFull = "unverified_full",
    /// Bytes that are here already but not yet verified; not acknowledged, as they may yet fail.
    UnverifiedBytes = "unverified_bytes",
    /// Data apart from their head on a sealed link, which only the CPU can open.
    SealedSplit = "sealed_split",
    /// A grant that was never given.
    UnknownGrant = "unknown_grant",
    /// A grant's generation with the region of another.
    WrongRegion = "wrong_region",
    /// Beyond the end of a grant.
    OutOfBounds = "out_of_bounds",
    /// For a grant that ended: never written.
    LateDuplicate = "late_duplicate",
    /// For a grant that was taken back; the sender is told.
    Revoked = "revoked",
    /// Bytes that were here already: never written twice.
    DuplicateBytes = "duplicate_bytes",
    /// A message that was delivered already.
    DuplicateMessage = "duplicate_message",
    /// A message beyond the credit for messages.
    MessageOverrun = "message_overrun",
    /// The driver could not write to the region.
    RegionFailed = "region_failed",
}

/// A counter for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl From<[u64; DropReason::ALL.len()]> for DropCounters {
    /// Counts in the order of [`DropReason::ALL`].
    fn from(counts: [u64; DropReason::ALL.len()]) -> Self {
        Self(counts)
    }
}

impl DropCounters {
    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().copied().zip(self.0)
    }

    pub(crate) fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How often this happened.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Everything together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
