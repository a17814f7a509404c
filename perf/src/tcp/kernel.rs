//! What the kernel knows of a TCP connection.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;

fn option<T: Copy>(socket: RawFd, level: i32, name: i32) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<T>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes, which is the value's size.
    let failed =
        unsafe { libc::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &mut len) };
    // SAFETY: the callers ask for integers only, or structures of integers: zeroed is a value, and
    // so is whatever the kernel wrote.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// Segments that were sent again since the connection began.
#[must_use]
pub fn retransmissions(socket: RawFd) -> u64 {
    option::<libc::tcp_info>(socket, libc::IPPROTO_TCP, libc::TCP_INFO)
        .map_or(0, |info| u64::from(info.tcpi_total_retrans))
}

/// Bytes of the largest packet on the way to the peer, 0 if the kernel does not say.
#[must_use]
pub fn mtu(socket: RawFd) -> u64 {
    let v4 = option::<libc::c_int>(socket, libc::IPPROTO_IP, libc::IP_MTU);
    let found = v4.or_else(|| option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU));
    found
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(0)
}
