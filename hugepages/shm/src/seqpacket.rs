//! A socket pair that keeps messages apart and carries open files.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most files in one message.
pub const FILES_MAX: usize = 8;

/// A connected pair, both ends closed on exec.
///
/// # Errors
/// What the kernel says.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `ends` has room for both descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just opened and belong to nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Room for the control message, aligned as it must be.
#[repr(C, align(8))]
struct Control([u8; 256]);

/// Sends one message with `files`.
///
/// # Errors
/// What the socket says; `InvalidInput` for more than [`FILES_MAX`] files.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if files.len() > FILES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = Control([0; 256]);
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    if !raw.is_empty() {
        let size = size_of_val(raw.as_slice());
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: only arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size as u32) } as _;
        // SAFETY: the control buffer is aligned and has room for the header and FILES_MAX
        // descriptors, so the first header and its data are inside it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size as u32) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), size);
        }
    }
    loop {
        // SAFETY: `message` points to live buffers of the lengths it gives.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives one message into `bytes`, and its files. 0 bytes: the other end is closed.
///
/// # Errors
/// What the socket says; `InvalidData` for a message that was cut.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut control = Control([0; 256]);
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    let len = loop {
        // SAFETY: `message` points to live buffers of the lengths it gives.
        let got =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(got) {
            Ok(len) => break len,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    let mut files = Vec::new();
    // SAFETY: the kernel filled the control buffer; the macros walk inside `msg_controllen`.
    // Each descriptor in it was opened for this process and belongs to nobody else.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let size = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..size / size_of::<RawFd>() {
                    files.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message was cut",
        ));
    }
    Ok((len, files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;
    use std::os::fd::AsFd;

    #[test]
    fn messages_stay_apart_and_files_arrive() {
        let (here, there) = pair().unwrap();
        let memory = Mapping::create(4096).unwrap();
        memory.write(0, b"shared").unwrap();
        send(here.as_fd(), b"one", &[memory.file(), memory.file()]).unwrap();
        send(here.as_fd(), b"two", &[]).unwrap();
        let mut bytes = [0; 16];
        let (len, mut files) = receive(there.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..len], files.len()), (&b"one"[..], 2));
        let same = Mapping::from_peer(files.pop().unwrap()).unwrap();
        let mut seen = [0; 6];
        same.read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"shared");
        assert_eq!(receive(there.as_fd(), &mut bytes).unwrap().0, 3);
        drop(here);
        assert_eq!(receive(there.as_fd(), &mut bytes).unwrap().0, 0);
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error() {
        let (here, there) = pair().unwrap();
        send(here.as_fd(), &[1; 100], &[]).unwrap();
        assert!(receive(there.as_fd(), &mut [0; 10]).is_err());
    }
}
