//! Writing to a socket that has a timeout.

use std::io::{self, IoSlice, Write};

/// Whether a call of a socket failed only because time passed or a signal came.
#[must_use]
pub fn is_tick(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Writes all of `parts`, in as few calls as `to` allows. At a tick it asks `go_on`.
///
/// # Errors
/// Those of `to`; what `go_on` makes of a tick.
pub fn write_all(
    to: &mut impl Write,
    mut parts: &mut [IoSlice<'_>],
    go_on: &mut dyn FnMut(io::Error) -> io::Result<()>,
) -> io::Result<()> {
    // Drops empty parts at the front: nothing may be left to write.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        let n = write_some(to, parts, go_on)?;
        IoSlice::advance_slices(&mut parts, n);
    }
    Ok(())
}

/// Writes something of `parts`, which are not empty.
pub(crate) fn write_some(
    to: &mut impl Write,
    parts: &[IoSlice<'_>],
    go_on: &mut dyn FnMut(io::Error) -> io::Result<()>,
) -> io::Result<usize> {
    loop {
        match to.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => return Ok(n),
            Err(error) if is_tick(&error) => go_on(error)?,
            Err(error) => return Err(error),
        }
    }
}
