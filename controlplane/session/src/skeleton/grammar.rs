//! Every tag, what lies behind it, and what it takes of the streams: said once. The constants, the
//! items that [`super::walk`] gives, and the C++ header are all made from this.
//!
//! A line is `tag NAME Item { fields }: streams`. Fields follow the tag in this order, little-endian;
//! of an item that takes numbers, the last field says how many.

use super::{Counts, is_complex};
use crate::WireError;
use crate::varint::Reader;

/// What an item takes of the streams of a call. `n` is its last field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// Nothing.
    Nothing,
    /// One of params.
    Param,
    /// One of data.
    Datum,
    /// Two of data.
    TwoData,
    /// `n` of params.
    Params,
    /// `n` of data.
    Data,
    /// The `n` items that follow.
    Items,
    /// A storage; params: offset, `n` sizes, `n` strides (in elements).
    View,
    /// A storage (that it makes); params: `n` sizes, `n` strides.
    Made,
    /// Data: one, or two where the dtype `n` is complex.
    Number,
}

impl Streams {
    const fn counts(self, n: usize) -> Counts {
        let (storages, params, data) = match self {
            Self::Nothing | Self::Items => (0, 0, 0),
            Self::Param => (0, 1, 0),
            Self::Datum => (0, 0, 1),
            Self::TwoData => (0, 0, 2),
            Self::Params => (0, n, 0),
            Self::Data => (0, 0, n),
            Self::View => (1, 1 + 2 * n, 0),
            Self::Made => (1, 2 * n, 0),
            Self::Number => (0, 0, if is_complex(n as u8) { 2 } else { 1 }),
        };
        Counts {
            storages,
            params,
            data,
        }
    }
}

/// How a field lies in the skeleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// One byte.
    Byte,
    /// Two bytes: a count.
    Count,
    /// Two bytes: a count; then so many bytes.
    Bytes,
}

/// A line of the grammar.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// As the constant is called.
    pub name: &'static str,
    /// The byte that says which item follows.
    pub tag: u8,
    /// What lies behind the tag, in order.
    pub fields: &'static [Field],
    /// What the item takes.
    pub streams: Streams,
}

trait Value<'a>: Sized {
    const FIELD: Field;
    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError>;
    fn number(self) -> usize;
}

impl Value<'_> for u8 {
    const FIELD: Field = Field::Byte;
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.u8()
    }
    fn number(self) -> usize {
        usize::from(self)
    }
}

impl Value<'_> for u16 {
    const FIELD: Field = Field::Count;
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.u16()
    }
    fn number(self) -> usize {
        usize::from(self)
    }
}

impl<'a> Value<'a> for &'a [u8] {
    const FIELD: Field = Field::Bytes;
    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let len = reader.u16()?;
        reader.bytes(usize::from(len))
    }
    fn number(self) -> usize {
        self.len()
    }
}

macro_rules! grammar {
    (
        $(#[$about_module:meta])* $module:ident,
        $(#[$about_item:meta])* $Item:ident $(<$life:lifetime>)?,
        $unknown:literal;
        $(
            $(#[$about:meta])*
            $value:literal $NAME:ident $Variant:ident
            $({ $($field:ident: $type:ty),+ })? : $streams:ident;
        )+
    ) => {
        $(#[$about_module])*
        pub mod $module {
            $($(#[$about])* pub const $NAME: u8 = $value;)+

            /// All of them, by number.
            pub const ALL: &[super::Line] = super::$Item::LINES;
        }

        $(#[$about_item])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the fields are named as the documents of the items do")]
        pub enum $Item $(<$life>)? {
            $($(#[$about])* $Variant $({ $($field: $type),+ })?),+
        }

        impl<'a> $Item $(<$life>)? {
            const LINES: &'static [Line] = &[
                $(Line {
                    name: stringify!($NAME),
                    tag: $value,
                    fields: &[$($(<$type as Value<'_>>::FIELD),+)?],
                    streams: Streams::$streams,
                }),+
            ];

            pub(super) fn read(tag: u8, reader: &mut Reader<'a>) -> Result<Self, WireError> {
                Ok(match tag {
                    $($value => Self::$Variant $({
                        $($field: <$type as Value<'_>>::read(reader)?),+
                    })?,)+
                    _ => return Err(WireError::Malformed($unknown)),
                })
            }

            /// What it takes of the streams. The items of a list are counted for themselves.
            #[must_use]
            pub fn counts(self) -> Counts {
                match self {
                    $(Self::$Variant $({ $($field),+ })? => {
                        let n = 0;
                        $($(let _ = n; let n = $field.number();)+)?
                        Streams::$streams.counts(n)
                    })+
                }
            }
        }
    };
}

grammar! {
    /// Tags of argument items.
    tag,
    /// One item of an argument skeleton.
    Argument<'a>,
    "an unknown argument tag";

    /// `None`, or an undefined tensor.
    0 NONE None: Nothing;
    /// A tensor.
    1 TENSOR Tensor { flags: u8, dtype: u8, ndim: u8 }: View;
    /// 0-dimensional CPU tensor or wrapped number (integers and bools as i64, floats as f64 bits;
    /// complex takes two).
    2 SCALAR_TENSOR ScalarTensor { flags: u8, dtype: u8 }: Number;
    /// An integer that decides shapes.
    3 INT Int: Param;
    /// A dtype, layout or memory format, as i8. Part of the structure.
    4 ENUM Enum { value: u8 }: Nothing;
    /// A float, as f64 bits.
    5 DOUBLE Double: Datum;
    /// Boolean `true`.
    6 TRUE True: Nothing;
    /// Boolean `false`.
    7 FALSE False: Nothing;
    /// Scalar holding an integer.
    8 SCALAR_INT ScalarInt: Datum;
    /// Scalar holding a double, as f64 bits.
    9 SCALAR_DOUBLE ScalarDouble: Datum;
    /// Scalar holding `true`.
    10 SCALAR_TRUE ScalarTrue: Nothing;
    /// Scalar holding `false`.
    11 SCALAR_FALSE ScalarFalse: Nothing;
    /// Scalar holding a complex double, as f64 bits (real, imaginary).
    12 SCALAR_COMPLEX ScalarComplex: TwoData;
    /// UTF-8.
    13 STRING String { bytes: &'a [u8] }: Nothing;
    /// Integers that decide shapes.
    14 INT_LIST IntList { count: u16 }: Params;
    /// Floats, as f64 bits.
    15 DOUBLE_LIST DoubleList { count: u16 }: Data;
    /// Bytes of 0 or 1.
    16 BOOL_LIST BoolList { bytes: &'a [u8] }: Nothing;
    /// A list of `count` items, none of them a list.
    17 LIST List { count: u16 }: Items;
    /// A device of the session.
    18 DEVICE Device { index: u8 }: Nothing;
    /// A generator argument: the seed drawn at capture.
    19 GENERATOR Generator: Datum;
    /// After the last argument of a random operator without a generator: the seed.
    20 SEED Seed: Datum;
    /// Before the first argument, where it is not float32: PyTorch's default dtype at capture. It
    /// decides what operators make of integers and Python numbers.
    21 DEFAULT_DTYPE DefaultDtype { dtype: u8 }: Nothing;
}

grammar! {
    /// Tags of result items.
    out,
    /// One item of a result skeleton.
    ResultItem,
    "an unknown result tag";

    /// An undefined tensor.
    0 NONE None: Nothing;
    /// A tensor with a storage of its own.
    1 FRESH Fresh { dtype: u8, ndim: u8 }: Made;
    /// The n-th tensor argument itself.
    2 ALIAS Alias { argument: u8 }: Nothing;
    /// A list of `count` items, none of them a list.
    3 LIST List { count: u16 }: Items;
}

/// Flags of [`tag::TENSOR`] and [`tag::SCALAR_TENSOR`].
pub mod flag {
    /// The operator writes this argument (in place, or `out=`).
    pub const WRITE: u8 = 1;
    /// A Python number that was wrapped in a tensor: weak in type promotion.
    pub const WRAPPED: u8 = 2;
    /// The negative bit is set (`Tensor.is_neg()`).
    pub const NEGATIVE: u8 = 4;
    /// The conjugate bit is set (`Tensor.is_conj()`).
    pub const CONJUGATE: u8 = 8;

    /// All of them, by name.
    pub const ALL: &[(&str, u8)] = &[
        ("WRITE", WRITE),
        ("WRAPPED", WRAPPED),
        ("NEGATIVE", NEGATIVE),
        ("CONJUGATE", CONJUGATE),
    ];
}
