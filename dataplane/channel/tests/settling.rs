//! The step between an arena and its use: who maps it, who does not, and who takes pages out of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;
#[path = "../../../hugepages/tests/turn/mod.rs"]
mod turn;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use common::{LONG, MAPPED, SIZES, Socket, hello, offer};
use genie_channel::attach::{AttachError, Sent, attach, read_request};
use genie_channel::{ChannelError, Command, Doorbell, FromApp, LoopHalf};
use genie_hugepages::{MapRequest, Region, Root, map};
use genie_shm::{Mapping, MemoryError, seqpacket};
use nix::errno::Errno;

const PAGES: u64 = 4;
const HUGE: u64 = 2 << 20;
const BYTES: u64 = PAGES * HUGE;

/// Memory that takes more seals, of huge pages.
fn huge() -> Mapping {
    let request = MapRequest::new(BYTES as usize).page(turn::PAGE);
    let region = map(&Root::system(), &request.huge_only().open_to_seals()).unwrap();
    let arena = Mapping::from_peer(region.into_fd()).unwrap();
    assert_eq!((arena.page_bytes(), arena.is_huge()), (HUGE, true));
    arena
}

/// The same of ordinary pages, on a machine without others.
fn ordinary() -> Mapping {
    let request = MapRequest::new(BYTES as usize).open_to_seals();
    let region = map(&Root::at("/nonexistent"), &request).unwrap();
    let arena = Mapping::from_peer(region.into_fd()).unwrap();
    assert!(!arena.is_huge());
    arena
}

/// A client that has been sent an arena and has said nothing yet.
struct Client {
    stream: UnixStream,
    arena: OwnedFd,
    _rings: Vec<OwnedFd>,
}

type Gateway = JoinHandle<Result<LoopHalf, AttachError>>;

fn begin(arena: Mapping) -> (Client, Gateway) {
    let (mut here, there) = UnixStream::pair().unwrap();
    here.set_read_timeout(Some(LONG)).unwrap();
    here.write_all(&hello()).unwrap();
    let gateway = std::thread::spawn(move || {
        read_request(&there, LONG)?;
        let doorbell = Doorbell::new()?;
        Sent::new(there, SIZES, Some(arena))?.settle(&doorbell, "by memif")
    });
    let mut head = [0; 3];
    let (len, mut files) = seqpacket::receive(here.as_fd(), &mut head).unwrap();
    assert_eq!((len, files.len(), head), (3, 4, [0; 3]));
    let arena = files.pop().unwrap();
    let client = Client {
        stream: here,
        arena,
        _rings: files,
    };
    (client, gateway)
}

impl Client {
    fn map(&self) -> Result<Mapping, MemoryError> {
        Mapping::from_peer(self.arena.try_clone().unwrap())
    }

    /// Status and text of the gateway's second answer.
    fn verdict(&mut self, word: &[u8]) -> (u8, String) {
        self.stream.write_all(word).unwrap();
        let mut head = [0; 3];
        self.stream.read_exact(&mut head).unwrap();
        let mut text = vec![0; usize::from(u16::from_le_bytes([head[1], head[2]]))];
        self.stream.read_exact(&mut text).unwrap();
        (head[0], String::from_utf8(text).unwrap())
    }

    fn yes(&mut self) {
        assert_eq!(self.verdict(&[MAPPED]), (0, "by memif".to_owned()));
    }

    fn punch(&self, page: u64) -> Result<(), Errno> {
        punch(self.arena.as_raw_fd(), page)
    }
}

fn punch(file: i32, page: u64) -> Result<(), Errno> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (offset, len) = ((page * HUGE) as libc::off_t, HUGE as libc::off_t);
    // SAFETY: a plain system call on an open file.
    Errno::result(unsafe { libc::fallocate(file, mode, offset, len) }).map(drop)
}

/// The hole of `fallocate` by another name.
fn remove(theirs: &Mapping, page: u64) -> Result<(), Errno> {
    let at = theirs.address(page * HUGE, HUGE).unwrap();
    // SAFETY: the range is inside a mapping that nobody has a reference into.
    let done = unsafe { libc::madvise(at.as_ptr().cast(), HUGE as usize, libc::MADV_REMOVE) };
    Errno::result(done).map(drop)
}

fn map_again(file: i32, protection: i32) -> Result<usize, Errno> {
    let none = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(none, BYTES as usize, protection, libc::MAP_SHARED, file, 0) };
    match at == libc::MAP_FAILED {
        true => Err(Errno::last()),
        false => Ok(at as usize),
    }
}

/// Every page of what the loop has can be read and written. One that can't be had is a SIGBUS.
fn touch(memory: &Mapping) {
    for page in 0..PAGES {
        let place = page * HUGE + 100;
        memory.write(place, &[page as u8 + 1; 8]).unwrap();
        let mut back = [0; 8];
        memory.read(place, &mut back).unwrap();
        assert_eq!(back, [page as u8 + 1; 8]);
    }
}

fn arena(half: &LoopHalf) -> &Mapping {
    half.arena().unwrap()
}

/// Huge pages for one arena, and the machine's pool of them for this test alone: what comes first is
/// given back first. `None`, with the reason, where there are none to be had.
fn pages() -> Option<(impl Drop, impl Sized)> {
    let alone = turn::alone();
    Some((turn::reserved(PAGES, None)?, alone))
}

/// Free huge pages that nobody was promised.
fn free() -> u64 {
    turn::inventory().usable(turn::PAGE, None)
}

/// Waits for pages whose last user is just going.
fn assert_free(pages: u64) {
    for _ in 0..200 {
        if free() == pages {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(free(), pages);
}

/// What frozen memory refuses to whoever has mapped it, on this kernel.
fn assert_no_holes(file: i32, theirs: &Mapping) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!("Linux {}, pages of {}", kernel.trim(), theirs.page_bytes());
    for page in 0..PAGES {
        assert_eq!(punch(file, page), Err(Errno::EPERM));
        assert_eq!(remove(theirs, page), Err(Errno::EPERM));
    }
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    assert_eq!(map_again(file, read_write), Err(Errno::EPERM));
    let reading = map_again(file, libc::PROT_READ).unwrap() as *mut libc::c_void;
    // SAFETY: a mapping of our own, used by nobody.
    unsafe {
        assert_eq!(libc::mprotect(reading, BYTES as usize, read_write), -1);
        assert_eq!(Errno::last(), Errno::EACCES);
        libc::munmap(reading, BYTES as usize);
        assert_eq!(libc::ftruncate(file, 0), -1);
        assert_eq!(libc::fcntl(file, libc::F_ADD_SEALS, libc::F_SEAL_WRITE), -1);
        // Its own mapping is its own: none of this reaches the other's.
        let at = theirs.address(0, BYTES).unwrap().as_ptr().cast();
        libc::mlock(at, BYTES as usize);
        libc::munlock(at, BYTES as usize);
        libc::madvise(at, BYTES as usize, libc::MADV_DONTNEED);
    }
}

#[test]
fn who_has_mapped_huge_pages_takes_none_of_them_out() {
    let Some(_pages) = pages() else { return };
    let before = free();
    let (mut client, gateway) = begin(huge());
    let theirs = client.map().unwrap();
    theirs.write(5 << 20, b"from the client").unwrap();
    client.yes();
    let half = gateway.join().unwrap().unwrap();
    assert_no_holes(client.arena.as_raw_fd(), &theirs);
    assert_eq!(free(), before - PAGES);
    let mut seen = [0; 15];
    arena(&half).read(5 << 20, &mut seen).unwrap();
    assert_eq!(&seen, b"from the client");
    assert!(matches!(theirs.discard(0, HUGE), Err(MemoryError::Kept)));
    touch(arena(&half));
    touch(&theirs);
    drop((theirs, client));
    touch(arena(&half));
    drop(half);
    assert_free(before);
}

#[test]
fn ordinary_pages_can_be_frozen_likewise() {
    let memory = ordinary();
    let theirs = Mapping::from_peer(memory.file().try_clone_to_owned().unwrap()).unwrap();
    let file = memory.file().as_raw_fd();
    assert_eq!((punch(file, 0), remove(&theirs, 1)), (Ok(()), Ok(())));
    memory.freeze().unwrap();
    assert_no_holes(file, &theirs);
    touch(&memory);
    touch(&theirs);
}

#[test]
fn an_arena_of_ordinary_pages_stays_as_it_is() {
    let (mut client, gateway) = begin(Mapping::create(BYTES).unwrap());
    let theirs = client.map().unwrap();
    client.yes();
    let half = gateway.join().unwrap().unwrap();
    theirs.write(7, b"gone").unwrap();
    // Such a page comes back as zeroes, and only so are they given back to the system.
    theirs.discard(0, HUGE).unwrap();
    client.punch(1).unwrap();
    let mut seen = [1; 4];
    arena(&half).read(7, &mut seen).unwrap();
    assert_eq!(seen, [0; 4]);
    touch(arena(&half));
}

#[test]
fn holes_before_the_word_are_filled() {
    let Some(_pages) = pages() else { return };
    let before = free();
    let (mut client, gateway) = begin(huge());
    let theirs = client.map().unwrap();
    theirs.write(0, b"forgotten").unwrap();
    client.punch(0).unwrap();
    remove(&theirs, 2).unwrap();
    client.yes();
    let half = gateway.join().unwrap().unwrap();
    assert_eq!(free(), before - PAGES);
    let mut seen = [1; 9];
    arena(&half).read(0, &mut seen).unwrap();
    assert_eq!(seen, [0; 9]);
    touch(arena(&half));
    drop((half, theirs, client));
    assert_free(before);
}

/// Every huge page that is free.
fn take_all() -> Region {
    let bytes = usize::try_from(free() * HUGE).unwrap();
    map(
        &Root::system(),
        &MapRequest::new(bytes).page(turn::PAGE).huge_only(),
    )
    .unwrap()
}

#[test]
fn holes_that_can_not_be_filled_end_the_attachment_and_not_the_gateway() {
    let Some(_pages) = pages() else { return };
    if turn::inventory().size(turn::PAGE).unwrap().overcommit > 0 {
        return println!("skipped: this machine makes huge pages when they run out");
    }
    let before = free();
    let (mut client, gateway) = begin(huge());
    let theirs = client.map().unwrap();
    client.punch(1).unwrap();
    remove(&theirs, 3).unwrap();
    let others = take_all();
    assert_eq!(free(), 0);
    let (status, text) = client.verdict(&[MAPPED]);
    assert_eq!(status, 2);
    assert!(text.contains("having all its pages"), "{text}");
    match gateway.join().unwrap() {
        Err(AttachError::Channel(ChannelError::Memory(MemoryError::System { .. }))) => {}
        other => panic!("{other:?}"),
    }
    drop((others, theirs, client));
    assert_free(before);
}

#[test]
fn who_seals_the_arena_first_gets_no_channel() {
    let Some(_pages) = pages() else { return };
    let before = free();
    let (mut client, gateway) = begin(huge());
    let file = client.arena.as_raw_fd();
    // SAFETY: a plain system call on an open file.
    let sealed = unsafe { libc::fcntl(file, libc::F_ADD_SEALS, libc::F_SEAL_SEAL) };
    assert_eq!(sealed, 0);
    let (status, text) = client.verdict(&[MAPPED]);
    assert!(status == 2 && text.contains("sealed it first"), "{text}");
    match gateway.join().unwrap() {
        Err(AttachError::Channel(ChannelError::Memory(MemoryError::NotFrozen))) => {}
        other => panic!("{other:?}"),
    }
    drop(client);
    assert_free(before);
}

#[test]
fn who_says_so_before_mapping_maps_nothing() {
    let Some(_pages) = pages() else { return };
    let (mut client, gateway) = begin(huge());
    client.yes();
    let half = gateway.join().unwrap().unwrap();
    assert!(client.map().is_err());
    assert_eq!(client.punch(0), Err(Errno::EPERM));
    touch(arena(&half));
}

#[test]
fn a_client_attaches_to_huge_pages() {
    let Some(_pages) = pages() else { return };
    let before = free();
    let socket = Socket::new();
    let doorbell = Doorbell::new().unwrap();
    let (mut app, mut half) = std::thread::scope(|scope| {
        let client = scope.spawn(|| attach(&socket.path, &offer(), LONG).unwrap());
        let stream = socket.accept();
        read_request(&stream, LONG).unwrap();
        let sent = Sent::new(stream, SIZES, Some(huge())).unwrap();
        let half = sent.settle(&doorbell, "by memif");
        (client.join().unwrap(), half.unwrap())
    });
    assert_eq!(app.link, "by memif");
    let mine = app.arena.clone().unwrap();
    assert!(mine.is_huge());
    mine.write(BYTES - 9, b"last word").unwrap();
    let (place, len) = (BYTES - 9, 9);
    assert!(app.sender.try_put(Command::Send { place, len }).unwrap());
    let heard = half.try_next().unwrap();
    assert_eq!(heard, Some(FromApp::Send { place, len }));
    let mut seen = [0; 9];
    arena(&half).read(place, &mut seen).unwrap();
    assert_eq!(&seen, b"last word");
    drop((app, mine, half));
    assert_free(before);
}

#[test]
fn a_client_that_never_says_so_is_given_up() {
    let (mut client, gateway) = begin(Mapping::create(BYTES).unwrap());
    let (status, text) = client.verdict(&[]);
    assert!(
        status == 2 && text.contains("was not mapped within"),
        "{text}"
    );
    let given_up = gateway.join().unwrap();
    assert!(matches!(given_up, Err(AttachError::NotMapped(_))));
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0, "it is hung up");
}

#[test]
fn a_client_that_goes_instead_is_an_end() {
    let (client, gateway) = begin(Mapping::create(BYTES).unwrap());
    drop(client);
    match gateway.join().unwrap() {
        Err(AttachError::Io(error)) => {
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_other_word_is_refused() {
    for word in [0, 1, b'm', 0xff] {
        let (mut client, gateway) = begin(Mapping::create(BYTES).unwrap());
        let (status, text) = client.verdict(&[word, MAPPED]);
        assert!(status == 2 && text.contains("something else"), "{text}");
        let refused = gateway.join().unwrap();
        assert!(matches!(refused, Err(AttachError::Malformed(_))));
    }
}

#[test]
fn who_says_so_twice_has_said_it_once() {
    let (mut client, gateway) = begin(Mapping::create(BYTES).unwrap());
    let word = [[MAPPED; 2].as_slice(), b"and garbage"].concat();
    assert_eq!(client.verdict(&word), (0, "by memif".to_owned()));
    let mut half = gateway.join().unwrap().unwrap();
    assert!(!half.is_gone());
    assert_eq!(half.try_next().unwrap(), None);
    drop(client);
    assert!(half.is_gone(), "though its bytes lie unread");
}
