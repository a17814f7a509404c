//! One packet.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use genie_dpdk_sys::{self as sys, rte_mbuf};

/// Segments of one packet, at most: what drivers commonly take.
const SEGMENTS_MAX: u16 = 64;

/// What a driver found out about a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// It was not looked at.
    Unknown,
}

/// Why a packet could not be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MbufError {
    /// No room behind the data.
    #[error("the mbuf has {room} bytes of tailroom, {asked} were asked for")]
    NoTailroom {
        /// Bytes asked for.
        asked: usize,
        /// Bytes there are.
        room: usize,
    },
    /// No room before the data.
    #[error("the mbuf has {room} bytes of headroom, {asked} were asked for")]
    NoHeadroom {
        /// Bytes asked for.
        asked: usize,
        /// Bytes there are.
        room: usize,
    },
    /// The segment has not that many bytes.
    #[error("the segment has {bytes} bytes, {asked} were asked for")]
    TooShort {
        /// Bytes asked for.
        asked: usize,
        /// Bytes there are.
        bytes: usize,
    },
    /// Only a packet of one segment can be changed so.
    #[error("the packet has more than one segment")]
    Segmented,
}

/// An owned packet: one or more segments of a [`crate::Mempool`]. Dropping it gives them back.
///
/// Invariant: the pointer is an mbuf with one reference, which is this value's; nobody else reads
/// or writes it, its segments or its data. Its pool lives as long (see [`crate::Mempool`]).
///
/// <https://doc.dpdk.org/guides/prog_guide/mbuf_lib.html>
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: the value is the only owner, and an mbuf may be freed on any thread.
unsafe impl Send for Mbuf {}

/// A field of an mbuf, at the offset that the C compiler found.
macro_rules! field {
    ($mbuf:expr, $offset:ident, $type:ty) => {
        $mbuf.as_ptr().byte_add(sys::$offset).cast::<$type>()
    };
}

impl Mbuf {
    /// # Safety
    /// `mbuf` must be owned by the caller, with one reference, and nowhere else.
    #[inline]
    pub(crate) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        Self(mbuf)
    }

    pub(crate) fn raw(&self) -> *mut rte_mbuf {
        self.0.as_ptr()
    }

    /// Whether it is empty, alone, and has its pool's buffer: what may be attached to.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_empty() && self.segment_count() == 1 && self.flags() & sys::GENIE_MBUF_FOREIGN == 0
    }

    /// Bytes of the whole packet.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: the field lies inside the mbuf that this value owns.
        unsafe { field!(self.0, GENIE_MBUF_PKT_LEN, u32).read() as usize }
    }

    /// Whether it has no data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many segments it has.
    pub fn segment_count(&self) -> u16 {
        // SAFETY: the field lies inside the mbuf that this value owns.
        unsafe { field!(self.0, GENIE_MBUF_NB_SEGS, u16).read() }
    }

    /// The data of the first segment; the whole packet where there is only one.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the first segment is owned by this value.
        unsafe { bytes(self.0) }
    }

    /// The data of the first segment, to be written to.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.start(), self.data().len());
        // SAFETY: as in `data`; this value is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// The data of all segments in order.
    pub fn segments(&self) -> Segments<'_> {
        Segments {
            next: Some(self.0),
            packet: PhantomData,
        }
    }

    /// Where the data of each segment lies, and how many bytes: for who reads it by other means,
    /// such as a device in whose memory it is.
    pub fn segment_addresses(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        std::iter::successors(Some(self.0), |&segment| following(segment)).map(|segment| {
            // SAFETY: the segment is part of the packet that this value owns.
            unsafe { extent(segment) }
        })
    }

    /// Adds `count` bytes behind the data and returns them to be written. What they hold before is
    /// left over from earlier packets.
    #[inline]
    pub fn append(&mut self, count: usize) -> Result<&mut [u8], MbufError> {
        self.single()?;
        let (bytes, room) = (self.data().len(), self.tailroom());
        if count > room {
            return Err(MbufError::NoTailroom { asked: count, room });
        }
        self.set_len(bytes + count);
        Ok(&mut self.data_mut()[bytes..])
    }

    /// Adds `bytes` behind the data.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), MbufError> {
        self.append(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Adds `count` bytes before the data and returns them to be written.
    pub fn prepend(&mut self, count: usize) -> Result<&mut [u8], MbufError> {
        self.single()?;
        let room = self.headroom();
        if count > room {
            return Err(MbufError::NoHeadroom { asked: count, room });
        }
        let len = self.data().len();
        self.set_offset(room - count);
        self.set_len(len + count);
        Ok(&mut self.data_mut()[..count])
    }

    /// Takes `count` bytes from the start of the data.
    pub fn advance(&mut self, count: usize) -> Result<(), MbufError> {
        self.single()?;
        let bytes = self.data().len();
        if count > bytes {
            return Err(MbufError::TooShort {
                asked: count,
                bytes,
            });
        }
        self.set_offset(self.headroom() + count);
        self.set_len(bytes - count);
        Ok(())
    }

    /// Cuts the data to its first `count` bytes.
    pub fn truncate(&mut self, count: usize) -> Result<(), MbufError> {
        self.single()?;
        let bytes = self.data().len();
        if count > bytes {
            return Err(MbufError::TooShort {
                asked: count,
                bytes,
            });
        }
        self.set_len(count);
        Ok(())
    }

    /// Puts `rest` behind this packet as further segments, a payload behind its header for example.
    /// Handed back where the packet would have more than 64 segments.
    pub fn chain(&mut self, rest: Mbuf) -> Result<(), Mbuf> {
        let segments = self.segment_count() + rest.segment_count();
        if segments > SEGMENTS_MAX {
            return Err(rest);
        }
        let (len, mut last) = (self.len() + rest.len(), self.0);
        while let Some(next) = following(last) {
            last = next;
        }
        // SAFETY: `last` is this packet's last segment and the fields lie inside it and the first
        // one. `rest` is owned, and becomes part of this packet: it is not dropped.
        unsafe {
            field!(last, GENIE_MBUF_NEXT, *mut rte_mbuf).write(rest.0.as_ptr());
            field!(self.0, GENIE_MBUF_NB_SEGS, u16).write(segments);
            field!(self.0, GENIE_MBUF_PKT_LEN, u32).write(len as u32);
        }
        std::mem::forget(rest);
        Ok(())
    }

    /// Bytes free before the data of the first segment.
    pub fn headroom(&self) -> usize {
        // SAFETY: the field lies inside the mbuf that this value owns.
        unsafe { field!(self.0, GENIE_MBUF_DATA_OFF, u16).read().into() }
    }

    /// Bytes free behind the data of the first segment.
    pub fn tailroom(&self) -> usize {
        // SAFETY: the field lies inside the mbuf that this value owns.
        let buffer: usize = unsafe { field!(self.0, GENIE_MBUF_BUF_LEN, u16).read().into() };
        buffer.saturating_sub(self.headroom() + self.data().len())
    }

    /// The hash by which the device chose the queue, where RSS was granted.
    pub fn rss_hash(&self) -> Option<u32> {
        let hashed = self.flags() & sys::GENIE_MBUF_RX_RSS_HASH != 0;
        // SAFETY: the field lies inside the mbuf that this value owns.
        hashed.then(|| unsafe { field!(self.0, GENIE_MBUF_RSS_HASH, u32).read() })
    }

    /// What the device found out about the IPv4 header's checksum.
    pub fn ip_checksum(&self) -> Checksum {
        match self.flags() & sys::GENIE_MBUF_RX_IP_MASK {
            sys::GENIE_MBUF_RX_IP_GOOD => Checksum::Good,
            sys::GENIE_MBUF_RX_IP_BAD => Checksum::Bad,
            _ => Checksum::Unknown,
        }
    }

    /// What the device found out about UDP's or TCP's checksum.
    pub fn l4_checksum(&self) -> Checksum {
        match self.flags() & sys::GENIE_MBUF_RX_L4_MASK {
            sys::GENIE_MBUF_RX_L4_GOOD => Checksum::Good,
            sys::GENIE_MBUF_RX_L4_BAD => Checksum::Bad,
            _ => Checksum::Unknown,
        }
    }

    /// Asks the device to write the checksums of an IPv4 header of `l3_bytes` after `l2_bytes`, and
    /// of the UDP header behind it. Only where checksums were granted for sending; UDP's field must
    /// hold the sum of the pseudo header.
    pub fn request_ipv4_udp_checksums(&mut self, l2_bytes: u8, l3_bytes: u8) {
        let Some(api) = sys::loaded() else { return };
        // SAFETY: packs numbers, which fit the 7 and 9 bits they have; then writes two fields that
        // lie inside the mbuf that this value owns.
        unsafe {
            let (l2, l3) = (u64::from(l2_bytes & 0x7f), u64::from(l3_bytes));
            let packed = api.genie_dpdk_mbuf_tx_offload(l2, l3, 8);
            field!(self.0, GENIE_MBUF_TX_OFFLOAD, u64).write(packed);
            let flags = self.flags() | sys::GENIE_MBUF_TX_IPV4_UDP;
            field!(self.0, GENIE_MBUF_OL_FLAGS, u64).write(flags);
        }
    }

    fn flags(&self) -> u64 {
        // SAFETY: the field lies inside the mbuf that this value owns.
        unsafe { field!(self.0, GENIE_MBUF_OL_FLAGS, u64).read() }
    }

    fn single(&self) -> Result<(), MbufError> {
        match self.segment_count() {
            1 => Ok(()),
            _ => Err(MbufError::Segmented),
        }
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: the fields lie inside the owned mbuf; the data starts inside its buffer.
        unsafe {
            let buffer = field!(self.0, GENIE_MBUF_BUF_ADDR, *mut u8).read();
            buffer.add(self.headroom())
        }
    }

    /// Only for a single segment, with a length that was checked against the buffer (16 bits).
    fn set_len(&mut self, len: usize) {
        // SAFETY: the fields lie inside the mbuf that this value owns.
        unsafe {
            field!(self.0, GENIE_MBUF_DATA_LEN, u16).write(len as u16);
            field!(self.0, GENIE_MBUF_PKT_LEN, u32).write(len as u32);
        }
    }

    /// Only with an offset that was checked against the buffer (16 bits).
    fn set_offset(&mut self, offset: usize) {
        // SAFETY: the field lies inside the mbuf that this value owns.
        unsafe { field!(self.0, GENIE_MBUF_DATA_OFF, u16).write(offset as u16) };
    }
}

/// The segment behind this one.
fn following(segment: NonNull<rte_mbuf>) -> Option<NonNull<rte_mbuf>> {
    // SAFETY: callers pass segments of a packet that is owned; the field lies inside.
    NonNull::new(unsafe { field!(segment, GENIE_MBUF_NEXT, *mut rte_mbuf).read() })
}

/// The data of one segment.
///
/// # Safety
/// The segment must be owned for `'a`, and not written to.
#[inline]
unsafe fn bytes<'a>(segment: NonNull<rte_mbuf>) -> &'a [u8] {
    // SAFETY: the extent is a part of the segment's buffer that its owner has initialised (a pool's
    // memory comes zeroed from the kernel).
    unsafe {
        let (start, len) = extent(segment);
        std::slice::from_raw_parts(start.as_ptr(), len)
    }
}

/// Where the data of one segment lies.
///
/// # Safety
/// The segment must be owned.
#[inline]
unsafe fn extent(segment: NonNull<rte_mbuf>) -> (NonNull<u8>, usize) {
    // SAFETY: the fields lie inside the segment, whose buffer is never null; the offset lies inside
    // the buffer.
    unsafe {
        let buffer = field!(segment, GENIE_MBUF_BUF_ADDR, NonNull<u8>).read();
        let offset = field!(segment, GENIE_MBUF_DATA_OFF, u16).read();
        let len = field!(segment, GENIE_MBUF_DATA_LEN, u16).read();
        (buffer.add(offset.into()), len.into())
    }
}

/// The data of a packet's segments. See [`Mbuf::segments`].
pub struct Segments<'a> {
    next: Option<NonNull<rte_mbuf>>,
    packet: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let segment = self.next?;
        self.next = following(segment);
        // SAFETY: the packet is borrowed for `'a` and owns the segment.
        Some(unsafe { bytes(segment) })
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // An mbuf only comes from a loaded DPDK.
        if let Some(api) = sys::loaded() {
            // SAFETY: this value is the only owner, and is gone afterwards.
            unsafe { api.genie_dpdk_mbuf_free(self.0.as_ptr()) };
        }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Mbuf({} bytes, {} segments)",
            self.len(),
            self.segment_count()
        )
    }
}
