//! Which writes leave nothing of what was there: those heal a value that could not be used.

use crate::skeleton::{self, Argument};

/// Operators that overwrite every element of what they write in place, and read none of it.
const IN_PLACE: [&str; 17] = [
    "aten::_foreach_copy_",
    "aten::_foreach_zero_",
    "aten::bernoulli_.Tensor",
    "aten::bernoulli_.float",
    "aten::cauchy_",
    "aten::copy_",
    "aten::exponential_",
    "aten::fill_.Scalar",
    "aten::fill_.Tensor",
    "aten::geometric_",
    "aten::log_normal_",
    "aten::normal_",
    "aten::random_",
    "aten::random_.from",
    "aten::random_.to",
    "aten::uniform_",
    "aten::zero_",
];

/// Operators with `out=` that read something of what they write.
const READING: [&str; 6] = [
    "aten::_batch_norm_with_update.out",
    "aten::_fused_adagrad.out",
    "aten::_fused_moving_avg_obs_fq_helper.out",
    "aten::_native_batch_norm_legit.out",
    "aten::_native_batch_norm_legit.no_stats_out",
    "aten::_resize_output.out",
];

/// Whether operator `name` overwrites what it writes, as far as its views reach.
pub(super) fn overwrites(name: &str) -> bool {
    let overload = name.split_once('.').map_or("", |(_, overload)| overload);
    let takes_out = overload == "out" || overload.ends_with("_out") || overload == "grad_input";
    IN_PLACE.contains(&name) || (takes_out && !READING.contains(&name))
}

/// For each tensor argument: the bytes of the storage that it spans without a gap from the first
/// one, if it does.
pub(super) fn spans(skeleton: &[u8], params: &[i64]) -> Vec<Option<u64>> {
    let mut spans = Vec::new();
    let mut at = 0;
    for item in skeleton::arguments(skeleton) {
        let Ok(item) = item else {
            break;
        };
        let counts = item.counts();
        if let Argument::Tensor { dtype, ndim, .. } = item {
            let numbers = params.get(at..at + counts.params).unwrap_or_default();
            spans.push(span(dtype, usize::from(ndim), numbers));
        }
        at += counts.params;
    }
    spans
}

fn span(dtype: u8, ndim: usize, numbers: &[i64]) -> Option<u64> {
    let (&offset, rest) = numbers.split_first()?;
    let (sizes, strides) = rest.split_at_checked(ndim)?;
    if offset != 0 {
        return None;
    }
    // Dense: from the smallest stride up each is what the dimensions below it take.
    let mut dims: Vec<(i64, i64)> = strides.iter().copied().zip(sizes.iter().copied()).collect();
    dims.retain(|&(_, size)| size != 1);
    dims.sort_unstable();
    let mut elements = 1_i64;
    for (stride, size) in dims {
        if stride != elements || size < 0 {
            return None;
        }
        elements = elements.checked_mul(size)?;
    }
    skeleton::element_bytes(dtype)?.checked_mul(u64::try_from(elements).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skeleton::tag;

    #[test]
    fn what_overwrites() {
        for name in [
            "aten::zero_",
            "aten::copy_",
            "aten::add.out",
            "aten::sum.IntList_out",
        ] {
            assert!(overwrites(name), "{name}");
        }
        for name in [
            "aten::add_.Tensor",
            "aten::add.Tensor",
            "aten::index_put_",
            "aten::outer",
        ] {
            assert!(!overwrites(name), "{name}");
        }
    }

    #[test]
    fn a_view_spans_its_storage_only_if_it_is_dense_from_the_start() {
        let skeleton = [tag::TENSOR, 0, 6, 2];
        let span = |numbers: [i64; 5]| spans(&skeleton, &numbers)[0];
        assert_eq!(span([0, 3, 4, 4, 1]), Some(48));
        assert_eq!(span([0, 3, 4, 1, 3]), Some(48));
        assert_eq!(span([0, 1, 4, 99, 1]), Some(16));
        assert_eq!(span([1, 3, 4, 4, 1]), None);
        assert_eq!(span([0, 2, 2, 3, 0]), None);
        assert_eq!(span([0, 3, 4, 8, 1]), None);
        assert_eq!(span([0, 3, 4, 4, 2]), None);
    }

    #[test]
    fn integers_between_tensors_are_stepped_over() {
        let skeleton = [
            tag::TENSOR,
            0,
            6,
            1,
            tag::INT,
            tag::INT_LIST,
            2,
            0,
            tag::LIST,
            1,
            0,
            tag::TENSOR,
            1,
            6,
            1,
        ];
        let numbers = [0, 5, 1, 77, 8, 9, 0, 6, 1];
        assert_eq!(spans(&skeleton, &numbers), [Some(20), Some(24)]);
    }
}
