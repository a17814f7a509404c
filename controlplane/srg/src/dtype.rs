//! Element types, by c10's numbering.

use crate::Dtype;

/// What lies between c10's number and the schema's, where 0 has to mean that nobody said.
const OFFSET: i32 = 1;

impl Dtype {
    /// The type with this number in `c10::ScalarType`; `None` for a number without a type here.
    pub fn from_scalar_type(scalar_type: u8) -> Option<Self> {
        Self::try_from(i32::from(scalar_type) + OFFSET).ok()
    }

    /// The number in `c10::ScalarType`; `None` for [`Dtype::Unspecified`].
    pub fn to_scalar_type(self) -> Option<u8> {
        u8::try_from(i32::from(self) - OFFSET).ok()
    }

    /// Bytes of one element; `None` for [`Dtype::Unspecified`].
    pub fn size_bytes(self) -> Option<u64> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Byte | Self::Char | Self::Bool | Self::Qint8 | Self::Quint8 => 1,
            Self::Float8E5m2 | Self::Float8E4m3fn | Self::Float8E5m2fnuz | Self::Float8E4m3fnuz => {
                1
            }
            Self::Short | Self::Half | Self::Bfloat16 | Self::Uint16 => 2,
            Self::Int | Self::Float | Self::ComplexHalf | Self::Qint32 | Self::Uint32 => 4,
            Self::Long | Self::Double | Self::ComplexFloat | Self::Uint64 => 8,
            Self::ComplexDouble => 16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_c10() {
        // From c10/core/ScalarType.h: (number, bytes, type).
        let c10 = [
            (0, 1, Dtype::Byte),
            (1, 1, Dtype::Char),
            (2, 2, Dtype::Short),
            (3, 4, Dtype::Int),
            (4, 8, Dtype::Long),
            (5, 2, Dtype::Half),
            (6, 4, Dtype::Float),
            (7, 8, Dtype::Double),
            (8, 4, Dtype::ComplexHalf),
            (9, 8, Dtype::ComplexFloat),
            (10, 16, Dtype::ComplexDouble),
            (11, 1, Dtype::Bool),
            (12, 1, Dtype::Qint8),
            (13, 1, Dtype::Quint8),
            (14, 4, Dtype::Qint32),
            (15, 2, Dtype::Bfloat16),
            (23, 1, Dtype::Float8E5m2),
            (24, 1, Dtype::Float8E4m3fn),
            (25, 1, Dtype::Float8E5m2fnuz),
            (26, 1, Dtype::Float8E4m3fnuz),
            (27, 2, Dtype::Uint16),
            (28, 4, Dtype::Uint32),
            (29, 8, Dtype::Uint64),
        ];
        for (number, bytes, dtype) in c10 {
            assert_eq!(Dtype::from_scalar_type(number), Some(dtype));
            assert_eq!(dtype.to_scalar_type(), Some(number));
            assert_eq!(dtype.size_bytes(), Some(bytes));
        }
        let known = (0..=u8::MAX)
            .filter(|&n| Dtype::from_scalar_type(n).is_some())
            .count();
        assert_eq!(known, c10.len());
    }

    #[test]
    fn unspecified_is_no_scalar_type() {
        assert_eq!(Dtype::Unspecified.to_scalar_type(), None);
        assert_eq!(Dtype::Unspecified.size_bytes(), None);
    }
}
