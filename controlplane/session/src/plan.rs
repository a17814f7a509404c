//! A plan's template: the structure of a segment that was seen, and a prediction of its numbers.
//!
//! Both ends hold the same [`Predictor`] and feed it the same instances, so a repeated segment
//! costs only the numbers that were predicted wrong. Each number is expected to move by as much
//! as it last did: constants stay, a KV cache grows, counters count.

use crate::WireError;
pub use crate::limits::{CAPTURED_MAX, PLANS_MAX, TEMPLATE_MAX, TEMPLATE_NUMBERS_MAX};
use crate::record::{self, Kind, Plain, Shape};
use crate::segment::SEGMENT_RECORDS_MAX;
use crate::varint::{Reader, put_i64, put_u64};

const NUMBERS_DIFFER: u8 = 1;
const FREES_DIFFER: u8 = 2;

/// One record of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordTemplate {
    /// What it does.
    pub kind: Kind,
    /// Operator number of the session.
    pub op: u32,
    /// See [`crate::record`].
    pub structure: Vec<u8>,
    /// The structure taken apart.
    pub shape: Shape,
    /// Storages freed before it, relative to the segment.
    pub frees: Vec<i64>,
    /// Index of its first number in the template.
    pub first_number: usize,
    /// It carries bytes.
    pub has_blob: bool,
}

impl RecordTemplate {
    /// Where its numbers lie in the template.
    #[must_use]
    pub fn numbers(&self) -> std::ops::Range<usize> {
        self.first_number..self.first_number + self.shape.numbers()
    }
}

/// A segment's structure with the numbers of the run that was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Records in order.
    pub records: Vec<RecordTemplate>,
    /// Numbers of all records in order.
    pub numbers: Vec<i64>,
    /// Names of the operators that the records use, by number.
    pub operators: Vec<(u32, String)>,
}

impl Template {
    /// Takes the records of a payload (plain ones; definitions name the operators).
    ///
    /// # Errors
    /// Bytes that are not records, a chunk, or more than the bounds allow.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::within(bytes, TEMPLATE_MAX)
    }

    /// The same for records as they were captured, inline bytes and all: what is left without these
    /// may still be small enough.
    ///
    /// # Errors
    /// As [`Template::decode`].
    pub fn captured(bytes: &[u8]) -> Result<Self, WireError> {
        Self::within(bytes, CAPTURED_MAX)
    }

    fn within(bytes: &[u8], max: usize) -> Result<Self, WireError> {
        if bytes.len() > max {
            return Err(WireError::TooMany {
                what: "bytes of a segment",
                got: bytes.len() as u64,
                max,
            });
        }
        let mut template = Self::default();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            match record::next_item(&mut reader)? {
                record::Item::Plain(plain) => template.push(&plain)?,
                record::Item::DefineOp { op, name } => {
                    template.operators.push((op, name.to_owned()));
                }
                record::Item::Chunk { .. } | record::Item::DropPlan { .. } => {
                    return Err(WireError::Malformed("a segment that refers to a plan"));
                }
            }
        }
        Ok(template)
    }

    fn push(&mut self, plain: &Plain<'_>) -> Result<(), WireError> {
        if plain.kind == Kind::Frees {
            return Ok(());
        }
        let shape = Shape::parse(plain.kind, plain.structure)?;
        if shape.numbers() != plain.numbers.count {
            return Err(WireError::Malformed("the numbers do not fit the structure"));
        }
        let first_number = self.numbers.len();
        plain.numbers.unpack(&mut self.numbers);
        let mut frees = Vec::new();
        plain.frees.unpack(&mut frees);
        self.records.push(RecordTemplate {
            kind: plain.kind,
            op: plain.op,
            structure: plain.structure.to_vec(),
            shape,
            frees,
            first_number,
            has_blob: plain.blob.is_some(),
        });
        if self.records.len() > SEGMENT_RECORDS_MAX + 1 || self.numbers.len() > TEMPLATE_NUMBERS_MAX
        {
            return Err(WireError::TooMany {
                what: "records of a segment",
                got: self.records.len() as u64,
                max: SEGMENT_RECORDS_MAX,
            });
        }
        Ok(())
    }

    /// Takes of `names` those of the operators that its records use.
    pub(crate) fn name_operators(&mut self, names: &[(u32, String)]) {
        let mut used: Vec<u32> = self.records.iter().map(|record| record.op).collect();
        used.sort_unstable();
        used.dedup();
        let names = names.iter();
        let used = names.filter(|(op, _)| used.binary_search(op).is_ok());
        self.operators = used.cloned().collect();
    }

    /// Its bytes, as [`Template::decode`] reads them. Inline bytes are not kept: the record says
    /// that it has some.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (op, name) in &self.operators {
            record::put_define_op(&mut out, *op, name);
        }
        for template in &self.records {
            let blob = template.has_blob.then_some(&[][..]);
            let numbers = self.numbers.get(template.numbers()).unwrap_or_default();
            record::put_plain(
                &mut out,
                template.kind,
                template.op,
                &template.structure,
                numbers,
                &template.frees,
                blob,
            );
        }
        out
    }

    /// Bytes that it occupies, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fixed = std::mem::size_of::<RecordTemplate>() + 64;
        self.numbers.len() * 24
            + self
                .records
                .iter()
                .map(|r| r.structure.len() + fixed)
                .sum::<usize>()
    }
}

/// What is expected of each number of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predictor {
    last: Vec<i64>,
    step: Vec<i64>,
}

impl Predictor {
    /// Starts from the recorded numbers, expecting them again.
    #[must_use]
    pub fn new(numbers: &[i64]) -> Self {
        Self {
            last: numbers.to_vec(),
            step: vec![0; numbers.len()],
        }
    }

    /// Client: appends what of `actual` (numbers from index `first` on) was predicted wrong, as
    /// `count, (gap, difference)...`, and learns. Gives whether anything was appended.
    pub fn encode(&mut self, first: usize, actual: &[i64], out: &mut Vec<u8>) -> bool {
        let range = first..first + actual.len();
        let (Some(last), Some(step)) = (self.last.get_mut(range.clone()), self.step.get_mut(range))
        else {
            debug_assert!(false, "numbers past the template");
            return false;
        };
        let mut wrong = 0_u64;
        for ((&value, last), step) in actual.iter().zip(last.iter()).zip(step.iter()) {
            wrong += u64::from(value != last.wrapping_add(*step));
        }
        if wrong > 0 {
            put_u64(out, wrong);
            let mut gap = 0_u64;
            for ((&value, last), step) in actual.iter().zip(last.iter()).zip(step.iter()) {
                let predicted = last.wrapping_add(*step);
                if value == predicted {
                    gap += 1;
                } else {
                    put_u64(out, gap);
                    put_i64(out, value.wrapping_sub(predicted));
                    gap = 0;
                }
            }
        }
        for ((&value, last), step) in actual.iter().zip(last.iter_mut()).zip(step.iter_mut()) {
            *step = value.wrapping_sub(*last);
            *last = value;
        }
        wrong > 0
    }

    /// Node: the numbers of `range`, with the differences that `reader` holds (if any), appended
    /// to `out`; learns.
    ///
    /// # Errors
    /// Differences past the end.
    pub fn decode(
        &mut self,
        range: std::ops::Range<usize>,
        reader: Option<&mut Reader<'_>>,
        out: &mut Vec<i64>,
    ) -> Result<(), WireError> {
        let start = out.len();
        let (Some(last), Some(step)) = (self.last.get_mut(range.clone()), self.step.get_mut(range))
        else {
            return Err(WireError::Malformed("numbers past the plan"));
        };
        out.extend(
            last.iter()
                .zip(step.iter())
                .map(|(last, step)| last.wrapping_add(*step)),
        );
        if let Some(reader) = reader {
            let mut index = start;
            let wrong = reader.count("differences", last.len())?;
            for _ in 0..wrong {
                index += reader.count("predicted numbers", last.len())?;
                let difference = reader.var_i64()?;
                let value = out
                    .get_mut(index)
                    .ok_or(WireError::Malformed("a difference past the plan"))?;
                *value = value.wrapping_add(difference);
                index += 1;
            }
        }
        let actual = out.get(start..).unwrap_or_default();
        for ((&value, last), step) in actual.iter().zip(last.iter_mut()).zip(step.iter_mut()) {
            *step = value.wrapping_sub(*last);
            *last = value;
        }
        Ok(())
    }
}

/// Client: writes a chunk's body. Exceptions first, inline bytes after them.
#[derive(Debug, Default)]
pub struct ChunkWriter {
    exceptions: Vec<u8>,
    blobs: Vec<u8>,
    scratch: Vec<u8>,
    count: u32,
    last_exception: u32,
}

impl ChunkWriter {
    /// Records in the chunk so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the chunk so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exceptions.len() + self.blobs.len() + 1
    }

    /// True when it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds the next record of the plan.
    pub fn push(
        &mut self,
        template: &RecordTemplate,
        predictor: &mut Predictor,
        numbers: &[i64],
        frees: &[i64],
        blob: Option<&[u8]>,
    ) {
        self.count += 1;
        self.scratch.clear();
        let numbers_differ = predictor.encode(template.first_number, numbers, &mut self.scratch);
        let frees_differ = template.frees != frees;
        if numbers_differ || frees_differ {
            put_u64(
                &mut self.exceptions,
                u64::from(self.count - self.last_exception),
            );
            self.last_exception = self.count;
            self.exceptions.push(
                u8::from(numbers_differ) * NUMBERS_DIFFER + u8::from(frees_differ) * FREES_DIFFER,
            );
            self.exceptions.extend_from_slice(&self.scratch);
            if frees_differ {
                record::put_packed(&mut self.exceptions, frees);
            }
        }
        if let Some(blob) = blob {
            put_u64(&mut self.blobs, blob.len() as u64);
            self.blobs.extend_from_slice(blob);
        }
    }

    /// Appends the chunk as an item and starts over.
    pub fn finish(&mut self, out: &mut Vec<u8>, plan: u32, start: u32) {
        self.exceptions.push(0);
        self.exceptions.extend_from_slice(&self.blobs);
        record::put_chunk(out, plan, start, self.count, &self.exceptions);
        self.exceptions.clear();
        self.blobs.clear();
        self.count = 0;
        self.last_exception = 0;
    }
}

/// Node: reads a chunk's body record by record.
#[derive(Debug)]
pub struct ChunkReader<'a> {
    exceptions: Reader<'a>,
    blobs: Reader<'a>,
    /// Records until the next exception; zero when there is none left.
    until_exception: u64,
}

impl<'a> ChunkReader<'a> {
    /// Takes a body apart. The inline bytes start where the exceptions end, which takes one pass.
    ///
    /// # Errors
    /// Truncation and counts past their bounds.
    pub fn new(body: &'a [u8]) -> Result<Self, WireError> {
        let mut scan = Reader::new(body);
        loop {
            if scan.var_u64()? == 0 {
                break;
            }
            let flags = scan.u8()?;
            if flags & NUMBERS_DIFFER != 0 {
                for _ in 0..scan.count("differences", record::NUMBERS_MAX)? {
                    scan.var_u64()?;
                    scan.var_u64()?;
                }
            }
            if flags & FREES_DIFFER != 0 {
                record::packed(&mut scan, record::FREES_MAX)?;
            }
        }
        let mut exceptions = Reader::new(body);
        let until_exception = exceptions.var_u64()?;
        Ok(Self {
            exceptions,
            blobs: Reader::new(scan.rest()),
            until_exception,
        })
    }

    /// The next record: its numbers and frees are appended; gives its inline bytes.
    ///
    /// # Errors
    /// Differences past the plan, truncation.
    pub fn next(
        &mut self,
        template: &RecordTemplate,
        predictor: &mut Predictor,
        numbers: &mut Vec<i64>,
        frees: &mut Vec<i64>,
    ) -> Result<Option<&'a [u8]>, WireError> {
        let mut flags = 0;
        if self.until_exception > 0 {
            self.until_exception -= 1;
            if self.until_exception == 0 {
                flags = self.exceptions.u8()?;
            }
        }
        let differ = (flags & NUMBERS_DIFFER != 0).then_some(&mut self.exceptions);
        predictor.decode(template.numbers(), differ, numbers)?;
        if flags & FREES_DIFFER != 0 {
            record::packed(&mut self.exceptions, record::FREES_MAX)?.unpack(frees);
        } else {
            frees.extend_from_slice(&template.frees);
        }
        if flags != 0 {
            self.until_exception = self.exceptions.var_u64()?;
        }
        if template.has_blob {
            let len = self.blobs.count("inline bytes", record::INLINE_MAX)?;
            return Ok(Some(self.blobs.bytes(len)?));
        }
        Ok(None)
    }
}
