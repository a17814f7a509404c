//! What was found out of a structure, by tenant and fingerprint: what was analysed once is not analysed
//! again. Its values follow from their keys; nothing of a session is in them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Facts, Fingerprint};

/// Bytes that are kept for one tenant.
pub const TENANT_BYTES_MAX: usize = 16 << 20;
/// Tenants that something is kept for.
pub const TENANTS_MAX: usize = 256;

/// By tenant: fingerprints can be made to collide, so nothing crosses tenants, and a tenant that fills
/// its share forgets its own.
#[derive(Debug)]
pub struct FactCache {
    /// For each tenant.
    structures_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tenants: HashMap<String, Share>,
    clock: u64,
    counts: Counts,
}

/// What is kept for one tenant. Forgets what was not used for longest.
#[derive(Debug, Default)]
struct Share {
    entries: HashMap<Fingerprint, (Arc<Facts>, u64)>,
    by_use: BTreeMap<u64, Fingerprint>,
    bytes: usize,
    used: u64,
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

impl FactCache {
    /// Room for `structures_max` structures of each tenant, at least one.
    #[must_use]
    pub fn new(structures_max: usize) -> Self {
        Self {
            structures_max: structures_max.max(1),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// What is known of this structure.
    pub fn find(&self, tenant: &str, fingerprint: &Fingerprint) -> Option<Arc<Facts>> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.clock += 1;
        let found = inner
            .tenants
            .get_mut(tenant)
            .and_then(|share| share.find(fingerprint, inner.clock));
        match found {
            Some(_) => inner.counts.hits += 1,
            None => inner.counts.misses += 1,
        }
        found
    }

    /// Remembers it.
    pub fn insert(&self, tenant: &str, fingerprint: Fingerprint, structure: Arc<Facts>) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.clock += 1;
        if !inner.tenants.contains_key(tenant) && inner.tenants.len() >= TENANTS_MAX {
            let longest_ago = inner.tenants.iter().min_by_key(|(_, share)| share.used);
            if let Some(name) = longest_ago.map(|(name, _)| name.clone())
                && let Some(share) = inner.tenants.remove(&name)
            {
                inner.counts.evicted += share.entries.len() as u64;
            }
        }
        let share = inner.tenants.entry(tenant.to_owned()).or_default();
        share.insert(fingerprint, structure, inner.clock);
        inner.counts.evicted += share.shrink(self.structures_max);
    }

    /// How often it helped.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.lock().counts
    }

    /// How many structures it knows of a tenant.
    #[must_use]
    pub fn known(&self, tenant: &str) -> usize {
        let inner = self.inner.lock();
        inner
            .tenants
            .get(tenant)
            .map_or(0, |share| share.entries.len())
    }
}

impl Share {
    fn find(&mut self, fingerprint: &Fingerprint, clock: u64) -> Option<Arc<Facts>> {
        self.used = clock;
        let (structure, used) = self.entries.get_mut(fingerprint)?;
        self.by_use.remove(used);
        *used = clock;
        self.by_use.insert(clock, *fingerprint);
        Some(Arc::clone(structure))
    }

    fn insert(&mut self, fingerprint: Fingerprint, structure: Arc<Facts>, clock: u64) {
        self.used = clock;
        self.bytes += structure.bytes();
        if let Some((old, used)) = self.entries.insert(fingerprint, (structure, clock)) {
            self.bytes -= old.bytes();
            self.by_use.remove(&used);
        }
        self.by_use.insert(clock, fingerprint);
    }

    /// Forgets until it fits; gives how many.
    fn shrink(&mut self, structures_max: usize) -> u64 {
        let mut forgotten = 0;
        while (self.entries.len() > structures_max || self.bytes > TENANT_BYTES_MAX)
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            if let Some((old, _)) = self.entries.remove(&oldest) {
                self.bytes -= old.bytes();
                forgotten += 1;
            }
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Arc<Facts> {
        Arc::new(Facts::default())
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = FactCache::new(2);
        let [a, b, c] = [1_u8, 2, 3].map(|n| [n; 16]);
        cache.insert("t", a, facts());
        cache.insert("t", b, facts());
        assert!(cache.find("t", &a).is_some());
        cache.insert("t", c, facts());
        assert!(cache.find("t", &b).is_none());
        assert!(cache.find("t", &a).is_some() && cache.find("t", &c).is_some());
        let expected = Counts {
            hits: 3,
            misses: 1,
            evicted: 1,
        };
        assert_eq!(cache.counts(), expected);
    }

    #[test]
    fn inserting_again_does_not_grow_it() {
        let cache = FactCache::new(2);
        for _ in 0..5 {
            cache.insert("t", [1; 16], facts());
        }
        cache.insert("t", [2; 16], facts());
        assert_eq!((cache.known("t"), cache.counts().evicted), (2, 0));
    }

    #[test]
    fn a_tenant_that_floods_it_forgets_only_its_own() {
        let cache = FactCache::new(8);
        cache.insert("quiet", [1; 16], facts());
        for n in 0..1000_u128 {
            cache.insert("loud", n.to_be_bytes(), facts());
        }
        assert_eq!(cache.known("loud"), 8);
        assert!(cache.find("quiet", &[1; 16]).is_some());
        assert!(cache.find("loud", &[1; 16]).is_none());
    }

    #[test]
    fn a_tenant_has_a_share_in_bytes_too() {
        let cache = FactCache::new(usize::MAX);
        let bytes = facts().bytes();
        let fit = TENANT_BYTES_MAX / bytes;
        for n in 0..fit as u128 + 100 {
            cache.insert("t", n.to_be_bytes(), facts());
        }
        assert_eq!(cache.known("t"), fit);
        assert_eq!(cache.counts().evicted, 100);
    }

    #[test]
    fn tenants_are_bounded() {
        let cache = FactCache::new(1);
        for n in 0..TENANTS_MAX + 1 {
            cache.insert(&n.to_string(), [1; 16], facts());
        }
        assert_eq!(cache.inner.lock().tenants.len(), TENANTS_MAX);
        assert_eq!(cache.known("0"), 0);
    }
}
