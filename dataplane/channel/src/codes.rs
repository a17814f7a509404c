//! What the codes of a loop's messages mean.

/// Codes of [`ToApp::Ended`](crate::ToApp::Ended).
pub mod ended {
    /// The peer said all that it had to say.
    pub const FINISHED: u8 = 0;
    /// The connection ended, and not by anybody's wish.
    pub const LOST: u8 = 1;
    /// The peer broke the protocol.
    pub const PROTOCOL: u8 = 2;
    /// The loop stops.
    pub const STOPPED: u8 = 3;
}

/// Codes of [`ToApp::BulkFailed`](crate::ToApp::BulkFailed).
pub mod failed {
    /// The transfer failed; the text says why.
    pub const TRANSFER: u8 = 1;
    /// What the program asked for is not possible: a place outside its memory, for example.
    pub const INVALID: u8 = 2;
}
