//! The results of calls by their signature, so that a call seen before needs no inference.

use std::sync::Arc;

use genie_session::WireError;
use genie_session::segment::IdMap;
use genie_session::skeleton::{self, flag};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Signatures kept at most, in two generations of half of it.
pub const SIGNATURES_MAX: usize = 64 << 10;

/// What a call results in.
#[derive(Debug, PartialEq, Eq)]
pub struct Results {
    /// Result skeleton.
    pub skeleton: Vec<u8>,
    /// Sizes and strides.
    pub params: Vec<i64>,
    /// Fresh storages.
    pub fresh: u64,
    /// Which of the call's tensors it writes.
    pub writes: Box<[bool]>,
    /// Bytes of each fresh storage.
    pub fresh_bytes: Box<[u64]>,
}

impl Results {
    /// Of a call with `arguments` as its skeleton.
    ///
    /// # Errors
    /// What is no skeleton, or numbers that are not its own.
    pub fn new(arguments: &[u8], skeleton: Vec<u8>, params: Vec<i64>) -> Result<Self, WireError> {
        let mut writes = Vec::new();
        skeleton::measure(arguments, |flags, _, _| {
            writes.push(flags & flag::WRITE != 0);
        })?;
        let fresh_bytes = skeleton::fresh_bytes(&skeleton, &params)?;
        Ok(Self {
            skeleton,
            params,
            fresh: fresh_bytes.len() as u64,
            writes: writes.into(),
            fresh_bytes: fresh_bytes.into(),
        })
    }
}

#[derive(Debug)]
struct Entry {
    op: u32,
    skeleton: Vec<u8>,
    params: Vec<i64>,
    data: Vec<i64>,
    results: Arc<Results>,
}

/// What decides the results of a call.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// Operator.
    pub op: u32,
    /// Argument skeleton.
    pub skeleton: &'a [u8],
    /// Shape-deciding integers.
    pub params: &'a [i64],
    /// Other numbers, where they decide shapes too; else empty.
    pub data: &'a [i64],
}

impl Signature<'_> {
    fn hash(&self) -> u64 {
        let seed = xxh3_64_with_seed(self.skeleton, u64::from(self.op));
        let seed = xxh3_64_with_seed(as_bytes(self.params), seed);
        if self.data.is_empty() {
            seed
        } else {
            xxh3_64_with_seed(as_bytes(self.data), seed)
        }
    }

    fn is(&self, entry: &Entry) -> bool {
        self.op == entry.op
            && is_same(self.skeleton, &entry.skeleton)
            && is_same(self.params, &entry.params)
            && is_same(self.data, &entry.data)
    }
}

/// Item by item. They were written a moment ago, in pieces: a `memcmp`, which loads many at once, waits
/// until all of that is in the cache, longer than everything else here takes.
fn is_same<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other)
}

fn as_bytes(numbers: &[i64]) -> &[u8] {
    // SAFETY: any i64 is eight initialised bytes, and u8 has no alignment.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), std::mem::size_of_val(numbers)) }
}

/// The cache: what was not used for a generation goes.
#[derive(Debug, Default)]
pub struct ShapeCache {
    young: IdMap<Entry>,
    old: IdMap<Entry>,
}

impl ShapeCache {
    /// The results of `signature`, if it was seen.
    pub fn find(&mut self, signature: &Signature<'_>) -> Option<Arc<Results>> {
        let hash = signature.hash();
        if let Some(entry) = self.young.get(&hash).filter(|entry| signature.is(entry)) {
            return Some(Arc::clone(&entry.results));
        }
        let entry = self.old.remove(&hash).filter(|entry| signature.is(entry))?;
        let results = Arc::clone(&entry.results);
        self.insert(hash, entry);
        Some(results)
    }

    /// Remembers the results of `signature`.
    pub fn learn(&mut self, signature: &Signature<'_>, results: Results) {
        let entry = Entry {
            op: signature.op,
            skeleton: signature.skeleton.to_vec(),
            params: signature.params.to_vec(),
            data: signature.data.to_vec(),
            results: Arc::new(results),
        };
        self.insert(signature.hash(), entry);
    }

    fn insert(&mut self, hash: u64, entry: Entry) {
        if self.young.len() >= SIGNATURES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, entry);
    }

    /// Signatures held.
    #[must_use]
    pub fn signatures(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(params: &[i64]) -> Signature<'_> {
        Signature {
            op: 1,
            skeleton: &[3, 3],
            params,
            data: &[],
        }
    }

    #[test]
    fn finds_what_it_learnt_and_nothing_else() {
        let mut cache = ShapeCache::default();
        let results = |n| Results::new(&[], vec![1, 6, 1], vec![n, 1]).unwrap();
        cache.learn(&signature(&[2, 3]), results(2));
        assert_eq!(
            cache.find(&signature(&[2, 3])).as_deref(),
            Some(&results(2))
        );
        assert_eq!(cache.find(&signature(&[3, 2])), None);
        let other_op = Signature {
            op: 2,
            ..signature(&[2, 3])
        };
        assert_eq!(cache.find(&other_op), None);
    }

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let mut cache = ShapeCache::default();
        for n in 0..3 * SIGNATURES_MAX as i64 {
            let results = Results::new(&[], vec![], vec![]).unwrap();
            cache.learn(&signature(&[n]), results);
            assert!(cache.find(&signature(&[0])).is_some());
            assert!(cache.signatures() <= SIGNATURES_MAX);
        }
    }
}
