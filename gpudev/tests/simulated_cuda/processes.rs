//! Pools that one process makes and another maps, which dies in the middle of using them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use genie_gpudev::device::{CopyOrder, CudaDevice, Device, DeviceError, Memory, Queue};
use genie_gpudev::pools::handover;
use genie_gpudev::{AttachedPools, Pools};
use genie_shm::seqpacket;

use crate::devices::piece;
use crate::driver::{MIB, open_files, simulated};

/// The other process finds its ends of two sockets here: for pools, and for what it is to do.
const SOCKETS: &str = "GENIE_SIMULATED_SOCKETS";

/// What the other process is to do, each with a place, a length and a value.
const TAKE: u64 = 0;
const FILL: u64 = 1;
const EXPECT: u64 = 2;
const FORGET: u64 = 3;
const COPY_FOR_EVER: u64 = 4;
const END: u64 = 5;

struct Other {
    process: Child,
    pools: OwnedFd,
    orders: OwnedFd,
}

impl Other {
    fn start() -> Self {
        let (pools, their_pools) = seqpacket::pair().unwrap();
        let (orders, their_orders) = seqpacket::pair().unwrap();
        handover::bound_waits(orders.as_fd()).unwrap();
        let theirs = [their_pools.as_raw_fd(), their_orders.as_raw_fd()];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "processes::the_other_simulated_process",
                "--nocapture",
            ])
            .stdout(Stdio::null())
            .env(SOCKETS, format!("{} {}", theirs[0], theirs[1]));
        let keep = move || {
            for socket in theirs {
                // SAFETY: a plain system call on an open file: it stays open.
                unsafe { libc::fcntl(socket, libc::F_SETFD, 0) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only.
        let process = unsafe { command.pre_exec(keep) }.spawn().unwrap();
        Self {
            process,
            pools,
            orders,
        }
    }

    /// Tells it to do something, and waits until it is done.
    fn does(&self, what: [u64; 4]) {
        let words: Vec<u8> = what.iter().flat_map(|word| word.to_le_bytes()).collect();
        seqpacket::send(self.orders.as_fd(), &words, &[]).unwrap();
        let mut answer = [0; 64];
        let (len, _) = seqpacket::receive(self.orders.as_fd(), &mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer[..len]), "done", "{what:?}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _may_be_gone = self.process.kill();
        self.process.wait().unwrap();
    }
}

#[test]
fn simulated_pools_are_used_by_two_processes_and_outlive_one() {
    simulated(|driver| {
        let files = open_files();
        let device: Arc<dyn Device> = Arc::new(CudaDevice::open(0).unwrap());
        let mut queue = device.queue().unwrap();
        let mut pools = Pools::new(Arc::clone(&device), MIB, 900 * MIB);
        for is_killed in [false, true] {
            let other = Other::start();
            let mut places = Vec::new();
            for (number, len) in [50 * MIB, 130 * MIB, 60 * MIB].into_iter().enumerate() {
                let got = pools.allocate(len).unwrap();
                if let Some((base, memory)) = got.made {
                    handover::announce(other.pools.as_fd(), base, &memory).unwrap();
                    other.does([TAKE, base, 0, 0]);
                }
                let (memory, offset) = pools.memory(got.place, len).unwrap();
                queue
                    .write(memory, offset, &vec![number as u8; len as usize])
                    .unwrap();
                other.does([EXPECT, got.place, len, number as u64]);
                other.does([FILL, got.place + 7, len - 7, number as u64 + 100]);
                let mut found = vec![0; len as usize];
                queue.read(memory, offset, &mut found).unwrap();
                assert!(found[..7] == [number as u8; 7]);
                assert!(found[7..].iter().all(|&byte| byte == number as u8 + 100));
                places.push((got.place, len));
            }
            let (place, len) = places[1];
            if is_killed {
                other.does([COPY_FOR_EVER, place, len, 0]);
            } else {
                other.does([EXPECT, place + 7, len - 7, 101]);
            }
            let mut gone = Vec::new();
            if is_killed {
                drop(other);
                for &(place, _) in &places {
                    gone.extend(pools.free(place).unwrap());
                }
            } else {
                for &(place, _) in &places {
                    if let Some(base) = pools.free(place).unwrap() {
                        other.does([FORGET, base, 0, 0]);
                        gone.push(base);
                    }
                }
                other.does([END, 0, 0, 0]);
            }
            assert!(!gone.is_empty());
            // A new process knows none of the pools that are left.
            pools = Pools::new(Arc::clone(&device), MIB, 900 * MIB);
        }
        drop((pools, queue, device));
        assert_eq!(open_files(), files);
        assert_eq!(driver.refusals(), [""; 0]);
    });
}

#[test]
fn the_other_simulated_process() {
    let Ok(sockets) = std::env::var(SOCKETS) else {
        return eprintln!("skipped: this is the other process of another test");
    };
    let mut sockets = sockets.split(' ').map(|number| {
        // SAFETY: the parent left this file open for this process, which takes it once.
        unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) }
    });
    let [pools, orders] = [(); 2].map(|()| sockets.next().unwrap());
    simulated(|driver| {
        obey(pools, orders.as_fd());
        driver.check(&[]);
    });
    seqpacket::send(orders.as_fd(), b"done", &[]).unwrap();
}

fn obey(pools: OwnedFd, orders: BorrowedFd<'_>) {
    let device: Arc<dyn Device> = Arc::new(CudaDevice::open(0).unwrap());
    let mut queue = device.queue().unwrap();
    let mut attached = AttachedPools::new(device, pools).unwrap();
    let mut memories: BTreeMap<u64, Memory> = BTreeMap::new();
    loop {
        let mut words = [0; 32];
        let (len, _) = seqpacket::receive(orders, &mut words).unwrap();
        assert_eq!(len, 32, "the parent is gone");
        let mut words = words
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        let [what, place, len, value] = [(); 4].map(|()| words.next().unwrap());
        let memory = memories.range(..=place).next_back();
        match (what, memory) {
            (TAKE, _) => {
                let (base, memory) = attached.take().unwrap();
                assert_eq!(base, place);
                memories.insert(base, memory);
            }
            (FILL, Some((base, memory))) => {
                // The place's own address, as libtorch gets it.
                let address = attached.address(place, len).unwrap();
                assert_eq!(address, memory.address() + (place - base));
                let bytes = vec![value as u8; len as usize];
                queue.write(memory, place - base, &bytes).unwrap();
            }
            (EXPECT, Some((base, memory))) => {
                let mut found = vec![0; len as usize];
                queue.read(memory, place - base, &mut found).unwrap();
                assert!(found.iter().all(|&byte| byte == value as u8));
            }
            (FORGET, _) => {
                memories.remove(&place);
                assert!(attached.forget(place));
            }
            (COPY_FOR_EVER, Some((base, memory))) => {
                seqpacket::send(orders, b"done", &[]).unwrap();
                copy_for_ever(queue.as_mut(), memory, place - base, len);
            }
            (END, _) => return,
            _ => panic!("no such order: {what}"),
        }
        seqpacket::send(orders, b"done", &[]).unwrap();
    }
}

/// Until somebody kills this process.
fn copy_for_ever(queue: &mut dyn Queue, memory: &Memory, at: u64, len: u64) {
    let half = len / 2;
    loop {
        let copy = [piece(at, at + half, half)];
        match queue.copy(memory, memory, &copy, CopyOrder::InOrder) {
            Ok(_) | Err(DeviceError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
