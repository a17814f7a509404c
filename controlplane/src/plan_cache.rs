//! Plans by the structure of their segments: what was analysed once is not analysed again.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// A bounded cache that forgets what was not used for longest.
#[derive(Debug)]
pub struct PlanCache<K, T> {
    max: usize,
    inner: Mutex<Inner<K, T>>,
}

#[derive(Debug)]
struct Inner<K, T> {
    entries: HashMap<K, (Arc<T>, u64)>,
    by_use: BTreeMap<u64, K>,
    clock: u64,
    counts: Counts,
}

/// How often it helped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Found.
    pub hits: u64,
    /// Not found.
    pub misses: u64,
    /// Forgotten for lack of room.
    pub evicted: u64,
}

impl<K: Clone + Eq + Hash, T> PlanCache<K, T> {
    /// Room for `max` plans, at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let inner = Inner {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            counts: Counts::default(),
        };
        Self {
            max: max.max(1),
            inner: Mutex::new(inner),
        }
    }

    /// The plan of this structure, if it is known.
    pub fn find(&self, key: &K) -> Option<Arc<T>> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.clock += 1;
        let Some((plan, used)) = inner.entries.get_mut(key) else {
            inner.counts.misses += 1;
            return None;
        };
        inner.counts.hits += 1;
        inner.by_use.remove(used);
        *used = inner.clock;
        inner.by_use.insert(inner.clock, key.clone());
        Some(Arc::clone(plan))
    }

    /// Remembers a plan.
    pub fn insert(&self, key: K, plan: Arc<T>) {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let clock = inner.clock;
        if let Some((_, used)) = inner.entries.insert(key.clone(), (plan, clock)) {
            inner.by_use.remove(&used);
        }
        inner.by_use.insert(clock, key);
        while inner.entries.len() > self.max
            && let Some((_, oldest)) = inner.by_use.pop_first()
        {
            inner.entries.remove(&oldest);
            inner.counts.evicted += 1;
        }
    }

    /// How often it helped.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.lock().counts
    }

    /// How many plans it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// True when it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = PlanCache::new(2);
        let [a, b, c] = [1_u8, 2, 3].map(|n| [n; 16]);
        cache.insert(a, Arc::new('a'));
        cache.insert(b, Arc::new('b'));
        assert_eq!(cache.find(&a).as_deref(), Some(&'a'));
        cache.insert(c, Arc::new('c'));
        assert_eq!(cache.find(&b), None);
        assert!(cache.find(&a).is_some() && cache.find(&c).is_some());
        assert_eq!(
            cache.counts(),
            Counts {
                hits: 3,
                misses: 1,
                evicted: 1
            }
        );
    }

    #[test]
    fn inserting_again_does_not_grow_it() {
        let cache = PlanCache::new(2);
        for _ in 0..5 {
            cache.insert([1; 16], Arc::new(()));
        }
        cache.insert([2; 16], Arc::new(()));
        assert_eq!(cache.len(), 2);
        assert_eq!(cache.counts().evicted, 0);
    }
}
