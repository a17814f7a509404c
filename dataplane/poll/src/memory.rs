//! The memory that transfers read and write: mappings, and places in them that are granted.

use std::sync::Arc;

use genie_direct::Orders;
use genie_gpudev::device::gather::GatherPiece;
use genie_shm::Mapping;
use genie_transport::limits::{CONNECTIONS_MAX, GRANTS_MAX, PARTS_MAX};
use genie_transport::{PayloadRef, RegionGone, RegionId, Regions, SourceId};

/// Mappings that are known at a time: a source and a sink of each connection, and as many again.
const MAPPINGS_MAX: usize = 4 * CONNECTIONS_MAX;
/// Places that are granted at a time.
const PLACES_MAX: usize = CONNECTIONS_MAX * GRANTS_MAX;

/// Names a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryId(u32);

impl MemoryId {
    /// Counts from zero.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// The mapping that the transport calls so.
    pub(crate) fn of(source: SourceId) -> Option<Self> {
        Some(Self(u32::try_from(source.0).ok()?))
    }

    /// As the transport names it.
    #[must_use]
    pub fn source(self) -> SourceId {
        SourceId(u64::from(self.0))
    }
}

struct Known {
    mapping: Arc<Mapping>,
    /// The link can send from it.
    shared: bool,
}

#[derive(Clone, Copy)]
struct Place {
    memory: MemoryId,
    at: u64,
    len: u64,
}

impl Place {
    /// `len` bytes at `offset` of it. The transport keeps to the grant; that it is the place's own
    /// length is checked again.
    fn part(self, offset: u64, len: u64) -> Result<Self, RegionGone> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(Self {
                at: self.at + offset,
                len,
                ..self
            }),
            _ => Err(RegionGone),
        }
    }
}

/// All memory of a loop.
///
/// Both processes may write to a mapping at any time, so bytes are copied in and out, and nothing
/// is ever believed of what lies there.
pub struct Memory {
    mappings: Vec<Option<Known>>,
    places: Vec<Option<Place>>,
    free: Vec<u32>,
    /// Of the frame at hand: where a device is to place its data, and what.
    gather: Option<MemoryId>,
    orders: Vec<GatherPiece>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Without mappings.
    #[must_use]
    pub fn new() -> Self {
        Self {
            mappings: Vec::with_capacity(MAPPINGS_MAX),
            places: Vec::new(),
            free: Vec::new(),
            gather: None,
            orders: Vec::with_capacity(PARTS_MAX),
        }
    }

    /// Makes a mapping known. `None` when too many are.
    pub fn add(&mut self, mapping: Arc<Mapping>) -> Option<MemoryId> {
        let free = self.mappings.iter().position(Option::is_none);
        let at = match free {
            Some(at) => at,
            None if self.mappings.len() < MAPPINGS_MAX => {
                self.mappings.push(None);
                self.mappings.len() - 1
            }
            None => return None,
        };
        self.mappings[at] = Some(Known {
            mapping,
            shared: false,
        });
        Some(MemoryId(u32::try_from(at).ok()?))
    }

    /// The link can send from a mapping, without a copy.
    pub(crate) fn set_shared(&mut self, memory: MemoryId) {
        if let Some(Some(known)) = self.mappings.get_mut(memory.index()) {
            known.shared = true;
        }
    }

    /// Forgets a mapping, and every place in it.
    pub fn remove(&mut self, memory: MemoryId) {
        if let Some(mapping) = self.mappings.get_mut(memory.index()) {
            *mapping = None;
        }
        for at in 0..self.places.len() {
            if self.places[at].is_some_and(|place| place.memory == memory) {
                self.places[at] = None;
                self.free.push(at as u32);
            }
        }
    }

    /// Names a place, to be granted. `None` when it lies outside, or too many are named.
    pub fn name(&mut self, memory: MemoryId, at: u64, len: u64) -> Option<RegionId> {
        self.mapping(memory)?.address(at, len).ok()?;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.places.len() < PLACES_MAX => {
                self.places.push(None);
                u32::try_from(self.places.len() - 1).ok()?
            }
            None => return None,
        };
        self.places[slot as usize] = Some(Place { memory, at, len });
        Some(RegionId(u64::from(slot)))
    }

    /// Forgets a place; gives where it was.
    pub fn forget(&mut self, region: RegionId) -> Option<(u64, u64)> {
        let slot = usize::try_from(region.0).ok()?;
        let place = self.places.get_mut(slot)?.take()?;
        self.free.push(u32::try_from(slot).ok()?);
        Some((place.at, place.len))
    }

    /// Whether `len` bytes at `at` lie inside.
    #[must_use]
    pub fn holds(&self, memory: MemoryId, at: u64, len: u64) -> bool {
        self.mapping(memory)
            .is_some_and(|mapping| mapping.address(at, len).is_ok())
    }

    /// A device is to place the data of the next frame in this memory.
    pub(crate) fn gather_into(&mut self, memory: MemoryId) {
        self.gather = Some(memory);
    }

    fn place(&self, region: RegionId) -> Result<Place, RegionGone> {
        let slot = usize::try_from(region.0).map_err(|_| RegionGone)?;
        self.places.get(slot).copied().flatten().ok_or(RegionGone)
    }

    fn known(&self, memory: MemoryId) -> Option<&Known> {
        self.mappings.get(memory.index())?.as_ref()
    }

    fn mapping(&self, memory: MemoryId) -> Option<&Arc<Mapping>> {
        self.known(memory).map(|known| &known.mapping)
    }

    fn source(&self, source: SourceId) -> Option<&Known> {
        self.known(MemoryId::of(source)?)
    }
}

impl Regions for Memory {
    fn read(&mut self, source: SourceId, offset: u64, into: &mut [u8]) -> Result<(), RegionGone> {
        let known = self.source(source).ok_or(RegionGone)?;
        known.mapping.read(offset, into).map_err(|_| RegionGone)
    }

    fn bytes(
        &mut self,
        source: SourceId,
        offset: u64,
        len: usize,
    ) -> Result<Option<&[u8]>, RegionGone> {
        let known = self.source(source).ok_or(RegionGone)?;
        // SAFETY: the transport gives them to the cipher alone, which reads them once. Where they
        // change meanwhile, what it read is sealed, and no conclusion is drawn here.
        let bytes = unsafe { known.mapping.bytes(offset, len as u64) };
        bytes.map(Some).map_err(|_| RegionGone)
    }

    fn crc(
        &mut self,
        source: SourceId,
        offset: u64,
        len: u64,
        seed: u32,
    ) -> Result<Option<u32>, RegionGone> {
        let known = self.source(source).ok_or(RegionGone)?;
        if !known.shared {
            return Ok(None);
        }
        // SAFETY: summed in one pass. Where the bytes change meanwhile the sum does not fit what is
        // sent, the peer drops it, and the transfer fails: no conclusion is drawn here.
        let bytes = unsafe { known.mapping.bytes(offset, len) }.map_err(|_| RegionGone)?;
        Ok(Some(genie_transport::crc32c(seed, bytes)))
    }

    fn write(&mut self, region: RegionId, offset: u64, bytes: &[u8]) -> Result<(), RegionGone> {
        let place = self.place(region)?.part(offset, bytes.len() as u64)?;
        let mapping = self.mapping(place.memory).ok_or(RegionGone)?;
        mapping.write(place.at, bytes).map_err(|_| RegionGone)
    }

    fn place_remote(
        &mut self,
        region: RegionId,
        offset: u64,
        from: PayloadRef,
    ) -> Result<(), RegionGone> {
        let place = self.place(region)?.part(offset, from.len)?;
        if self.gather != Some(place.memory) || self.orders.len() >= PARTS_MAX {
            return Err(RegionGone);
        }
        let piece = GatherPiece::new(from.offset, place.len, place.at);
        self.orders.push(piece.ok_or(RegionGone)?);
        Ok(())
    }
}

impl Orders for Memory {
    fn begin(&mut self, _offset: u64) {
        self.orders.clear();
    }

    fn orders(&self) -> &[GatherPiece] {
        &self.orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_takes_its_own_bytes_and_no_others() {
        let mut memory = Memory::new();
        let mapping = Arc::new(Mapping::create(4096).unwrap());
        let id = memory.add(Arc::clone(&mapping)).unwrap();
        let region = memory.name(id, 100, 10).unwrap();
        memory.write(region, 2, b"abc").unwrap();
        assert_eq!(memory.write(region, 8, b"abc"), Err(RegionGone));
        assert_eq!(memory.write(RegionId(9), 0, b"a"), Err(RegionGone));
        let mut read = [0; 5];
        memory.read(id.source(), 101, &mut read).unwrap();
        assert_eq!(&read, b"\0abc\0");
        assert_eq!(memory.forget(region), Some((100, 10)));
        assert_eq!(memory.write(region, 0, b"a"), Err(RegionGone));
        assert_eq!(memory.name(id, u64::MAX, 10), None);
    }

    #[test]
    fn a_removed_mapping_takes_its_places_along() {
        let mut memory = Memory::new();
        let id = memory
            .add(Arc::new(Mapping::create(4096).unwrap()))
            .unwrap();
        let region = memory.name(id, 0, 10).unwrap();
        memory.remove(id);
        assert_eq!(memory.write(region, 0, b"a"), Err(RegionGone));
        assert_eq!(memory.forget(region), None);
        let again = memory
            .add(Arc::new(Mapping::create(4096).unwrap()))
            .unwrap();
        assert_eq!(again, id);
        let named = memory.name(again, 0, 1).unwrap();
        let other = memory.name(again, 0, 1).unwrap();
        assert_ne!(named, other);
    }
}
