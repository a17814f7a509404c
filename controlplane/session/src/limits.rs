//! Every bound of the log and of its wire, once. Both ends, the daemon and the control plane take them
//! from here; `tests/limits.rs` walks them: what is one below passes, what is one above is refused.
//! A graph's own are in `genie_srg::limits`; the node's that an operator may set are in its
//! configuration.

/// Most items nested in one call, lists included.
pub const ITEMS_MAX: usize = 4096;
/// Most dimensions of a tensor (PyTorch's own limit is 64).
pub const DIMS_MAX: u8 = 64;
/// Most bytes of a structure, numbers of a record, and bytes sent inside a record.
pub const STRUCTURE_MAX: usize = 64 << 10;
/// Most numbers of a record.
pub const NUMBERS_MAX: usize = 32 << 10;
/// Most bytes of an upload that travel inside the record; larger ones are bulk.
pub const INLINE_MAX: usize = 16 << 10;
/// Most frees between two records.
pub const FREES_MAX: usize = 64 << 10;
/// Longest operator name.
pub const NAME_MAX: usize = 256;
/// Most results a synchronous operator may create.
pub const RESERVED_MAX: u64 = 1024;
/// Most bytes of an encoded template: what one frame to an executor holds, so that what is analysed can
/// be installed.
pub const TEMPLATE_MAX: usize = PAYLOAD_MAX;
/// Most bytes of a captured segment that is looked at for a plan, inline bytes among them.
pub const CAPTURED_MAX: usize = 8 << 20;
/// Most numbers of one template.
pub const TEMPLATE_NUMBERS_MAX: usize = 1 << 20;
/// Logs of a session, one a device.
pub const LOGS_MAX: usize = 128;
/// Plans that a session may have at a time.
pub const PLANS_MAX: usize = 256;
/// Plans that a node holds for a session: as many as a client may have, and as many again that it
/// has dropped in messages which the node has not come to.
pub const NODE_PLANS_MAX: usize = 2 * PLANS_MAX;
/// Records after which a structure whose plan was declined may ask again.
pub const PLAN_AGAIN_AFTER: u64 = 1 << 16;
/// Records after which a segment is cut.
pub const SEGMENT_RECORDS_MAX: usize = 2048;
/// Records of the longest cycle that is cut where it begins.
pub const CYCLE_RECORDS_MAX: usize = SEGMENT_RECORDS_MAX;
/// Records of the shortest: of a shorter one several turns are one.
pub const CYCLE_RECORDS_MIN: usize = 16;
/// Largest payload. Raw bytes are counted apart.
pub const PAYLOAD_MAX: usize = 1 << 20;
/// Longest message of a fault, in bytes; longer ones are cut.
pub const MESSAGE_MAX: usize = 4096;
/// Values that a session may hold.
pub const VALUES_MAX: usize = 1 << 22;
/// Plans whose analysis was asked for and not yet answered.
pub const PLANS_PENDING_MAX: usize = 8;
