//! One entry of the log in its normal form: everything but the numbers is the *structure*, and
//! storages are named relative to the segment, so that the same code run again gives the same
//! structure byte for byte.
//!
//! Structure: `skeleton length, skeleton, reference count, references, tail`. The tail depends on
//! the kind: a result skeleton ([`Kind::Op`]), reserved ids ([`Kind::CallSync`]), 0 or 1 for
//! bulk ([`Kind::Upload`]).
//! Numbers: `ids of new external storages, params, data, tail numbers`. The tail numbers are
//! the results' sizes and strides, a byte count, or a fetch's id; a transfer's id ([`Kind::Send`]), a
//! byte count and a transfer's id ([`Kind::Recv`]).

use crate::WireError;
pub use crate::limits::{
    FREES_MAX, INLINE_MAX, NAME_MAX, NUMBERS_MAX, RESERVED_MAX, STRUCTURE_MAX,
};
use crate::segment::Ref;
use crate::skeleton::{self, Counts};
use crate::varint::{Reader, put_i64, put_u64};

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Runs an operator with predicted results.
    Op = 1,
    /// Overwrites a storage with bytes of the client, or makes one of them.
    Upload = 2,
    /// Asks for a view's elements. Ends the segment.
    Fetch = 3,
    /// Runs an operator whose results the client waits for. Ends the segment.
    CallSync = 4,
    /// Answers when everything before it has run. Ends the segment.
    Barrier = 5,
    /// Makes an uninitialised storage.
    Alloc = 6,
    /// Grows or shrinks a storage.
    Resize = 7,
    /// Ends a segment that became too long.
    Cut = 8,
    /// Only frees. Not part of a segment's structure.
    Frees = 9,
    /// Sends a view's elements to another device of the session.
    Send = 10,
    /// Makes a storage of what another device of the session sends. It is pending until that is
    /// here: the first record that uses it waits.
    Recv = 11,
}

impl Kind {
    fn from_u8(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Op,
            2 => Self::Upload,
            3 => Self::Fetch,
            4 => Self::CallSync,
            5 => Self::Barrier,
            6 => Self::Alloc,
            7 => Self::Resize,
            8 => Self::Cut,
            9 => Self::Frees,
            10 => Self::Send,
            11 => Self::Recv,
            _ => return None,
        })
    }

    /// True where the client waits for an answer, and so hears of failures.
    #[must_use]
    pub fn is_look(self) -> bool {
        matches!(self, Self::Fetch | Self::CallSync | Self::Barrier)
    }

    /// True where the segment ends with this record.
    #[must_use]
    pub fn ends_segment(self) -> bool {
        matches!(
            self,
            Self::Fetch | Self::CallSync | Self::Barrier | Self::Cut
        )
    }
}

const KIND_MASK: u8 = 0x0f;
const HAS_FREES: u8 = 0x80;
const HAS_BLOB: u8 = 0x40;
/// The bytes of this bulk upload came with an earlier transmission that was refused.
const STASHED: u8 = 0x20;
const DEFINE_OP: u8 = 0x10;
const CHUNK: u8 = 0x11;
const DROP_PLAN: u8 = 0x12;

/// A record as it lies in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<'a> {
    /// What it does.
    pub kind: Kind,
    /// Operator number, or 0.
    pub op: u32,
    /// See the module.
    pub structure: &'a [u8],
    /// `count` varints: see the module.
    pub numbers: Packed<'a>,
    /// Storages freed before it, as id minus the segment's first id.
    pub frees: Packed<'a>,
    /// Bytes inside the record.
    pub blob: Option<&'a [u8]>,
    /// The bulk bytes were sent before.
    pub stashed: bool,
}

/// Zigzag varints, already checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed<'a> {
    /// How many.
    pub count: usize,
    bytes: &'a [u8],
}

impl Packed<'_> {
    /// Appends the integers to `out`.
    pub fn unpack(&self, out: &mut Vec<i64>) {
        let mut reader = Reader::new(self.bytes);
        out.reserve(self.count);
        for _ in 0..self.count {
            // Checked when it was parsed.
            out.push(reader.var_i64().unwrap_or_default());
        }
    }
}

/// One item of a Records payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A record written out.
    Plain(Plain<'a>),
    /// An operator's number and name. Has no sequence number; repeating it changes nothing.
    DefineOp {
        /// Number.
        op: u32,
        /// `aten::add.Tensor`.
        name: &'a str,
    },
    /// The client has forgotten this plan. Has no sequence number.
    DropPlan {
        /// Plan.
        plan: u32,
    },
    /// Records `start .. start + count` of a plan; see [`crate::plan`].
    Chunk {
        /// Plan.
        plan: u32,
        /// First record.
        start: u32,
        /// How many records.
        count: u32,
        /// Exceptions and inline bytes; their end is known only with the plan, so the length
        /// is given.
        body: &'a [u8],
    },
}

/// Appends a record.
pub fn put_plain(
    out: &mut Vec<u8>,
    kind: Kind,
    op: u32,
    structure: &[u8],
    numbers: &[i64],
    frees: &[i64],
    blob: Option<&[u8]>,
) {
    let mut head = kind as u8;
    if !frees.is_empty() {
        head |= HAS_FREES;
    }
    if blob.is_some() {
        head |= HAS_BLOB;
    }
    out.push(head);
    if !frees.is_empty() {
        put_packed(out, frees);
    }
    put_u64(out, u64::from(op));
    put_u64(out, structure.len() as u64);
    out.extend_from_slice(structure);
    put_packed(out, numbers);
    if let Some(blob) = blob {
        put_u64(out, blob.len() as u64);
        out.extend_from_slice(blob);
    }
}

/// Marks the plain record that starts `item` as one whose bulk bytes were sent before.
pub fn mark_stashed(item: &mut [u8]) {
    if let Some(head) = item.first_mut() {
        *head |= STASHED;
    }
}

/// Appends an operator's definition.
pub fn put_define_op(out: &mut Vec<u8>, op: u32, name: &str) {
    out.push(DEFINE_OP);
    put_u64(out, u64::from(op));
    put_u64(out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
}

/// Appends a chunk of a plan.
pub fn put_chunk(out: &mut Vec<u8>, plan: u32, start: u32, count: u32, body: &[u8]) {
    out.push(CHUNK);
    put_u64(out, u64::from(plan));
    put_u64(out, u64::from(start));
    put_u64(out, u64::from(count));
    put_u64(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Appends the news that a plan is forgotten.
pub fn put_drop_plan(out: &mut Vec<u8>, plan: u32) {
    out.push(DROP_PLAN);
    put_u64(out, u64::from(plan));
}

/// Appends integers with their count.
pub fn put_packed(out: &mut Vec<u8>, values: &[i64]) {
    put_u64(out, values.len() as u64);
    for &value in values {
        put_i64(out, value);
    }
}

/// Reads integers with their count.
///
/// # Errors
/// Truncation, or more than `max`.
pub fn packed<'a>(reader: &mut Reader<'a>, max: usize) -> Result<Packed<'a>, WireError> {
    let count = reader.count("numbers", max)?;
    let start = reader.rest();
    for _ in 0..count {
        reader.var_u64()?;
    }
    Ok(Packed {
        count,
        bytes: &start[..start.len() - reader.rest().len()],
    })
}

/// Reads the next item of a payload.
///
/// # Errors
/// Anything that is not of the layout above.
pub fn next_item<'a>(reader: &mut Reader<'a>) -> Result<Item<'a>, WireError> {
    let head = reader.u8()?;
    match head {
        DEFINE_OP => {
            let op = op_number(reader)?;
            let len = reader.count("bytes of an operator name", NAME_MAX)?;
            let name = std::str::from_utf8(reader.bytes(len)?)
                .map_err(|_| WireError::Malformed("an operator name that is not UTF-8"))?;
            Ok(Item::DefineOp { op, name })
        }
        DROP_PLAN => u32::try_from(reader.var_u64()?)
            .map(|plan| Item::DropPlan { plan })
            .map_err(|_| WireError::Malformed("a plan number past 32 bits")),
        CHUNK => {
            let mut word = || -> Result<u32, WireError> {
                u32::try_from(reader.var_u64()?)
                    .map_err(|_| WireError::Malformed("a chunk past 32 bits"))
            };
            let (plan, start, count) = (word()?, word()?, word()?);
            let len = reader.count("chunk bytes", crate::frame::PAYLOAD_MAX)?;
            Ok(Item::Chunk {
                plan,
                start,
                count,
                body: reader.bytes(len)?,
            })
        }
        _ => plain(head, reader).map(Item::Plain),
    }
}

fn op_number(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    u32::try_from(reader.var_u64()?)
        .ok()
        .filter(|&op| op < 1 << 16)
        .ok_or(WireError::Malformed("an operator number past 16 bits"))
}

fn plain<'a>(head: u8, reader: &mut Reader<'a>) -> Result<Plain<'a>, WireError> {
    let kind = Kind::from_u8(head & KIND_MASK)
        .filter(|_| head & !(KIND_MASK | HAS_FREES | HAS_BLOB | STASHED) == 0)
        .ok_or(WireError::Malformed("an unknown record kind"))?;
    let frees = if head & HAS_FREES != 0 {
        packed(reader, FREES_MAX)?
    } else {
        Packed::default()
    };
    let op = op_number(reader)?;
    let len = reader.count("bytes of structure", STRUCTURE_MAX)?;
    let structure = reader.bytes(len)?;
    let numbers = packed(reader, NUMBERS_MAX)?;
    let blob = if head & HAS_BLOB != 0 {
        let len = reader.count("inline bytes", INLINE_MAX)?;
        Some(reader.bytes(len)?)
    } else {
        None
    };
    Ok(Plain {
        kind,
        op,
        structure,
        numbers,
        frees,
        blob,
        stashed: head & STASHED != 0,
    })
}

/// A structure taken apart and checked against its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Where the argument skeleton lies in the structure.
    pub skeleton: std::ops::Range<usize>,
    /// Storages of the tensor arguments.
    pub refs: Vec<Ref>,
    /// Where the tail lies.
    pub tail: usize,
    /// References that introduce a storage, each with an id among the numbers.
    pub externals: usize,
    /// What the skeleton consumes.
    pub counts: Counts,
    /// Numbers of the tail.
    pub tail_numbers: usize,
    /// Ids that the record takes.
    pub fresh: u64,
    /// Which of `refs` are written.
    pub written: Vec<bool>,
    /// For an upload: its bytes come as bulk.
    pub bulk: bool,
}

impl Shape {
    /// Takes `structure` apart.
    ///
    /// # Errors
    /// Anything that does not fit `kind`.
    pub fn parse(kind: Kind, structure: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(structure);
        let skeleton_len = reader.count("bytes of a skeleton", STRUCTURE_MAX)?;
        let skeleton_start = structure.len() - reader.rest().len();
        let skeleton = reader.bytes(skeleton_len)?;
        let n_refs = reader.count("storages", skeleton::ITEMS_MAX)?;
        let mut refs = Vec::with_capacity(n_refs);
        let mut externals = 0;
        for _ in 0..n_refs {
            let reference = Ref::from_code(reader.var_u64()?)?;
            externals += usize::from(reference == Ref::New);
            refs.push(reference);
        }
        let tail_bytes = reader.rest();
        let tail = structure.len() - tail_bytes.len();
        let mut written = Vec::with_capacity(n_refs);
        let counts = skeleton::measure(skeleton, |flags, _, _| {
            written.push(flags & skeleton::flag::WRITE != 0);
        })?;
        let mut shape = Self {
            skeleton: skeleton_start..skeleton_start + skeleton_len,
            refs,
            tail,
            externals,
            counts,
            tail_numbers: 0,
            fresh: 0,
            written,
            bulk: false,
        };
        let n = shape.refs.len();
        match kind {
            Kind::Op => {
                let mut alias_max = None;
                let out = skeleton::measure_out(
                    tail_bytes,
                    |_, _| {},
                    |alias| alias_max = alias_max.max(Some(usize::from(alias))),
                )?;
                if alias_max.is_some_and(|alias| alias >= n) {
                    return Err(WireError::Malformed("a result aliases no argument"));
                }
                shape.expect_refs(counts.storages)?;
                shape.tail_numbers = out.params;
                shape.fresh = out.fresh as u64;
            }
            Kind::CallSync => {
                shape.expect_refs(counts.storages)?;
                shape.fresh = Reader::new(tail_bytes).var_u64()?;
                if shape.fresh > RESERVED_MAX {
                    return Err(WireError::Malformed("too many reserved results"));
                }
            }
            Kind::Fetch | Kind::Send => {
                shape.expect_refs(1)?;
                if counts.storages != 1 || counts.data != 0 || !tail_bytes.is_empty() {
                    return Err(WireError::Malformed("a fetch of something but one tensor"));
                }
                shape.tail_numbers = 1;
            }
            Kind::Recv => {
                shape.expect_refs(0)?;
                shape.fresh = 1;
                shape.tail_numbers = 2;
            }
            Kind::Upload => {
                // Without a storage it makes one.
                match n {
                    0 => shape.fresh = 1,
                    _ => shape.expect_refs(1)?,
                }
                shape.bulk = match tail_bytes {
                    [0] => false,
                    [1] => true,
                    _ => return Err(WireError::Malformed("an upload's tail")),
                };
                shape.written = vec![true; n];
                shape.tail_numbers = 1;
            }
            Kind::Resize => {
                shape.expect_refs(1)?;
                shape.written = vec![true];
                shape.tail_numbers = 1;
            }
            Kind::Alloc => {
                shape.expect_refs(0)?;
                shape.fresh = 1;
                shape.tail_numbers = 1;
            }
            Kind::Barrier => {
                shape.expect_refs(0)?;
                shape.tail_numbers = 1;
            }
            Kind::Cut | Kind::Frees => shape.expect_refs(0)?,
        }
        let bare = matches!(kind, Kind::Upload | Kind::Resize | Kind::Alloc | Kind::Recv)
            || matches!(kind, Kind::Barrier | Kind::Cut | Kind::Frees);
        if bare && skeleton_len != 0 {
            return Err(WireError::Malformed(
                "arguments of a record that takes none",
            ));
        }
        Ok(shape)
    }

    fn expect_refs(&self, wanted: usize) -> Result<(), WireError> {
        if self.refs.len() == wanted {
            Ok(())
        } else {
            Err(WireError::Malformed(
                "the storages do not fit the arguments",
            ))
        }
    }

    /// How many numbers a record of this shape has.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.externals + self.counts.params + self.counts.data + self.tail_numbers
    }
}
