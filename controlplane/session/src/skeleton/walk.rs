//! Reading skeletons item by item. Whoever needs to know what is in one asks here.

use super::{Argument, DIMS_MAX, ITEMS_MAX, ResultItem};
use crate::WireError;
use crate::varint::Reader;

/// The items of an argument skeleton, in order; a list's items follow it. Ends at the first error.
#[must_use]
pub fn arguments(skeleton: &[u8]) -> Items<'_, Argument<'_>> {
    Items::new(skeleton)
}

/// The items of a result skeleton, likewise.
#[must_use]
pub fn results(skeleton: &[u8]) -> Items<'_, ResultItem> {
    Items::new(skeleton)
}

/// What can stand in a skeleton.
pub trait Item<'a>: Copy {
    /// As errors call them.
    const PLURAL: &'static str;
    /// Reads what follows `tag`.
    ///
    /// # Errors
    /// What is not of the grammar.
    fn read(tag: u8, reader: &mut Reader<'a>) -> Result<Self, WireError>;
    /// How many dimensions it has.
    fn ndim(self) -> u8;
    /// How many items it holds, if it is a list.
    fn list(self) -> Option<u16>;
    /// Where it may stand.
    fn place(self) -> Place {
        Place::Anywhere
    }
}

/// Where an item may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere.
    Anywhere,
    /// Before everything.
    First,
    /// Behind everything.
    Last,
}

impl<'a> Item<'a> for Argument<'a> {
    const PLURAL: &'static str = "arguments";

    fn read(tag: u8, reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Self::read(tag, reader)
    }

    fn ndim(self) -> u8 {
        match self {
            Self::Tensor { ndim, .. } => ndim,
            _ => 0,
        }
    }

    fn list(self) -> Option<u16> {
        match self {
            Self::List { count } => Some(count),
            _ => None,
        }
    }

    fn place(self) -> Place {
        match self {
            Self::DefaultDtype { .. } => Place::First,
            Self::Seed => Place::Last,
            _ => Place::Anywhere,
        }
    }
}

impl<'a> Item<'a> for ResultItem {
    const PLURAL: &'static str = "results";

    fn read(tag: u8, reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Self::read(tag, reader)
    }

    fn ndim(self) -> u8 {
        match self {
            Self::Fresh { ndim, .. } => ndim,
            _ => 0,
        }
    }

    fn list(self) -> Option<u16> {
        match self {
            Self::List { count } => Some(count),
            _ => None,
        }
    }
}

/// See [`arguments`] and [`results`].
#[derive(Clone, Debug)]
pub struct Items<'a, T> {
    reader: Reader<'a>,
    /// Items that a list still has to give.
    pending: u16,
    seen: usize,
    /// Nothing may follow.
    last: bool,
    failed: bool,
    item: std::marker::PhantomData<T>,
}

impl<'a, T: Item<'a>> Items<'a, T> {
    fn new(skeleton: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(skeleton),
            pending: 0,
            seen: 0,
            last: false,
            failed: false,
            item: std::marker::PhantomData,
        }
    }

    #[inline]
    fn read(&mut self) -> Result<T, WireError> {
        if self.last {
            return Err(WireError::Malformed("an argument behind the last"));
        }
        let tag = self.reader.u8()?;
        let item = T::read(tag, &mut self.reader)?;
        self.seen += 1;
        if self.seen > ITEMS_MAX {
            return Err(WireError::TooMany {
                what: T::PLURAL,
                got: self.seen as u64,
                max: ITEMS_MAX,
            });
        }
        if item.ndim() > DIMS_MAX {
            return Err(WireError::Malformed("a tensor of more than 64 dimensions"));
        }
        let nested = self.pending > 0;
        match item.place() {
            Place::Anywhere => {}
            Place::First if self.seen == 1 => {}
            Place::Last if !nested => self.last = true,
            Place::First | Place::Last => {
                return Err(WireError::Malformed("an argument where it may not stand"));
            }
        }
        match item.list() {
            Some(_) if nested => return Err(WireError::Malformed("a list inside a list")),
            Some(count) => self.pending = count,
            None => self.pending = self.pending.saturating_sub(1),
        }
        Ok(item)
    }
}

impl<'a, T: Item<'a>> Iterator for Items<'a, T> {
    type Item = Result<T, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || (self.reader.is_empty() && self.pending == 0) {
            return None;
        }
        let item = self.read();
        self.failed = item.is_err();
        Some(item)
    }
}
