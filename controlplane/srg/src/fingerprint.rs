//! The structural fingerprint: what two runs of the same program have in common.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
};

use xxhash_rust::xxh3::Xxh3;

use crate::{Edge, ValidSrg, node::Kind};

/// Changes when the rule does, so that fingerprints of two rules never meet.
const DOMAIN: &[u8] = b"genie-srg-fingerprint-1";

/// 128 bits of [`fingerprint`]. Not a cryptographic hash: whoever makes the graphs can make two that
/// collide, so a plan found by it must not cross tenants, and is checked against its graph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Most significant byte first, as `Plan.fingerprint` holds it.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The reverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a fingerprint: write 32 hexadecimal digits")]
pub struct ParseFingerprintError(String);

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let refuse = || ParseFingerprintError(text.chars().take(64).collect());
        // The length in bytes, and a sign, would pass `from_str_radix`.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| refuse())
    }
}

/// The structure of a graph in 128 bits: xxh3 of, in topological order,
/// - for each node its kind; for operators the name and `call`; for fused subgraphs the names in order
///   and `call`;
/// - for each of its edges by input index: the input index, the producer's position in the topological
///   order, the output index, the dtype, and which storage and version it reads.
///
/// Storages are numbered as they first appear in this walk and versions by rank among those of their
/// storage that the graph reads, so addresses and counters don't matter and who aliases whom does.
///
/// Not part of it: node ids, the listing of edges, shapes, layouts, `parameters`, the session epoch, the
/// schema version, and every annotation (phase, residency, modality, role, module path, lineage, cost,
/// can_fuse, can_recompute, colocation, priority, names of inputs, rates, criticality). The listing of
/// nodes matters only as far as the topological order does.
pub fn fingerprint(srg: &ValidSrg) -> Fingerprint {
    let wiring = srg.wiring();
    let mut hash = Hasher::new();
    let mut aliases = Aliases::new(srg.edges());
    hash.number(wiring.order.len());
    for &node in &wiring.order {
        hash_kind(&mut hash, srg.nodes()[node].kind.as_ref());
        let incoming = wiring.incoming(node);
        hash.number(incoming.len());
        for &index in incoming {
            let edge = &srg.edges()[index];
            hash.number(edge.input_index);
            hash.number(wiring.position[wiring.producer[index]]);
            hash.number(edge.output_index);
            hash.number(edge.dtype.unsigned_abs());
            aliases.hash(&mut hash, edge);
        }
    }
    Fingerprint(hash.0.digest128())
}

fn hash_kind(hash: &mut Hasher, kind: Option<&Kind>) {
    match kind {
        // Validation has refused it.
        None => hash.number(0_u32),
        Some(Kind::Operator(operator)) => {
            hash.number(1_u32);
            hash.bytes(operator.name.as_bytes());
            hash.bytes(&operator.call);
        }
        Some(Kind::Fused(fused)) => {
            hash.number(2_u32);
            hash.number(fused.operators.len());
            for name in &fused.operators {
                hash.bytes(name.as_bytes());
            }
            hash.bytes(&fused.call);
        }
        Some(Kind::Input(_)) => hash.number(3_u32),
    }
}

/// Storages and versions by the numbers they have in the fingerprint.
struct Aliases {
    storages: HashMap<u64, usize>,
    ranks: HashMap<(u64, u64), usize>,
}

impl Aliases {
    fn new(edges: &[Edge]) -> Self {
        let sorted: BTreeSet<(u64, u64)> = edges
            .iter()
            .filter_map(|edge| edge.storage)
            .map(|storage| (storage.id, storage.version))
            .collect();
        let mut ranks = HashMap::with_capacity(sorted.len());
        let mut current = (None, 0);
        for (id, version) in sorted {
            current = if current.0 == Some(id) {
                (Some(id), current.1 + 1)
            } else {
                (Some(id), 0)
            };
            ranks.insert((id, version), current.1);
        }
        Self {
            storages: HashMap::new(),
            ranks,
        }
    }

    fn hash(&mut self, hash: &mut Hasher, edge: &Edge) {
        let Some(storage) = edge.storage else {
            hash.number(0_u32);
            return;
        };
        let next = self.storages.len();
        hash.number(1_u32);
        hash.number(*self.storages.entry(storage.id).or_insert(next));
        hash.number(
            self.ranks
                .get(&(storage.id, storage.version))
                .copied()
                .unwrap_or_default(),
        );
    }
}

/// Numbers are 8 bytes and strings carry their length, so that two structures never write the same bytes.
struct Hasher(Xxh3);

impl Hasher {
    fn new() -> Self {
        let mut hash = Self(Xxh3::new());
        hash.bytes(DOMAIN);
        hash
    }

    fn number<N: TryInto<u64>>(&mut self, number: N) {
        // Lengths and indices fit; the alternative keeps this total.
        let number = number.try_into().unwrap_or(u64::MAX);
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests;
