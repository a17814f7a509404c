//! What can be tested without a GPU: that a machine without one says so, that the kernel compiles,
//! and, with its threads played by a CPU's, that it does what the host's loop does.

use super::kernel::{KernelError, compile};
use super::*;
use crate::device::HostDevice;
use crate::device::gather::{GatherFrame, GatherPiece, GatherTable, PLACED};

/// The device, or nothing and the reason printed.
fn gpu() -> Option<CudaDevice> {
    match CudaDevice::open(0) {
        Ok(device) => Some(device),
        Err(error @ DeviceError::Absent { .. }) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn without_a_driver_it_says_what_to_do() {
    // SAFETY: only asks whether the library can be opened.
    if unsafe { sys::is_culib_present() } {
        return eprintln!("skipped: this machine has NVIDIA's driver");
    }
    let error = CudaDevice::open(2).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("cuda:2") && text.contains("libcuda.so.1"),
        "{text}"
    );
}

#[test]
fn the_kernel_compiles_for_every_generation_from_ampere_on() {
    for (major, minor) in [(8, 0), (9, 0), (10, 0), (12, 0)] {
        match compile(major, minor) {
            Ok(ptx) => {
                let text = ptx.to_src();
                assert!(text.contains(".visible .entry genie_gather"), "{text}");
                assert!(
                    text.contains(&format!(".target sm_{major}{minor}")),
                    "{text}"
                );
            }
            Err(error @ KernelError::NoCompiler(_)) => return eprintln!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
    let unknown = compile(1, 0);
    assert!(
        matches!(unknown, Err(KernelError::Source(_))),
        "{unknown:?}"
    );
}

type Play = unsafe extern "C" fn(u64, u64, u64, u32);

/// The kernel's own source, compiled for this CPU.
fn on_this_cpu() -> Option<libloading::Library> {
    let folder = std::env::temp_dir().join(format!("genie-gather-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("gather.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/device/cuda/on_cpu.cpp");
    let compiled = std::process::Command::new("c++")
        .args(["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"])
        .args([source, "-o"])
        .arg(&library)
        .output();
    let result = match compiled {
        Err(error) => {
            eprintln!("skipped: no C++ compiler: {error}");
            None
        }
        Ok(output) => {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            // SAFETY: the library has just been made, and has no constructors of its own.
            Some(unsafe { libloading::Library::new(&library) }.unwrap())
        }
    };
    std::fs::remove_dir_all(&folder).unwrap();
    result
}

#[test]
fn the_kernel_does_what_the_hosts_loop_does() {
    let Some(library) = on_this_cpu() else { return };
    // SAFETY: the function has this signature, see `on_cpu.cpp`.
    let play = unsafe { library.get::<Play>(b"genie_gather_on_cpu") }.unwrap();
    let host = HostDevice::new(0);
    let payload = host.allocate(1 << 18).unwrap();
    // Twice the same memory: one for each way.
    let targets = [(); 2].map(|()| host.allocate(1 << 18).unwrap());
    let noise: Vec<u8> = (0..1_u32 << 18)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    payload.write(0, &noise).unwrap();
    let mut tables = targets
        .each_ref()
        .map(|to| GatherTable::new(&host, &payload, to, 32, 64).unwrap());
    let (mut at, mut to) = (0_u64, 0_u64);
    // Fewer bytes than threads, a share that is not whole, a whole one, jumbo, more.
    let lens = [0_u32, 1, 3, 127, 128, 129, 1400, 4096, 8192, 8875, 60_000];
    for (number, len) in (0_u32..).zip(lens.into_iter().chain(lens)) {
        // Half the frames are aligned for wide copies, and a third is corrupt.
        at = if number % 2 == 0 {
            at.next_multiple_of(16)
        } else {
            at
        };
        to = if number % 2 == 0 {
            to.next_multiple_of(16)
        } else {
            to
        };
        let data = &noise[at as usize..(at + u64::from(len)) as usize];
        let mut sum = crc32c::crc32c(data);
        sum ^= u32::from(number % 3 == 1) << (number % 32);
        let frame = GatherFrame {
            offset: at,
            len,
            crc: (number % 5 != 4).then_some(sum),
        };
        let middle = len / 3;
        let pieces = [
            GatherPiece {
                at: 0,
                len: middle,
                to,
            },
            GatherPiece {
                at: middle,
                len: len - middle,
                to: to + u64::from(middle) + 16,
            },
        ];
        for table in &mut tables {
            table.push(&frame, &pieces).unwrap();
        }
        at += u64::from(len) + 4;
        to += u64::from(len) + 32;
    }
    let [by_kernel, by_loop] = &mut tables;
    let (shared, count) = by_kernel.begin().unwrap();
    let [frames, pieces, verdicts] = shared.addresses();
    // SAFETY: a busy table of memory that this CPU reaches.
    unsafe { play(frames, pieces, verdicts, count as u32) };
    shared.done();
    host.queue().unwrap().gather(by_loop).unwrap();
    let found = [by_kernel, by_loop].map(|table| {
        (0..count)
            .map(|frame| table.verdict(frame))
            .collect::<Vec<_>>()
    });
    assert_eq!(found[0], found[1]);
    assert!((0..count).any(|frame| found[0][frame] == crate::device::gather::Verdict::Corrupt));
    let contents = targets.map(|memory| {
        let mut bytes = vec![0; 1 << 18];
        memory.read(0, &mut bytes).unwrap();
        bytes
    });
    assert!(contents[0] == contents[1], "the places differ");
    assert_eq!(PLACED, 1);
}

#[test]
fn a_gpu_copies_and_gathers() {
    let Some(device) = gpu() else { return };
    crate::device::check::copies(&device).unwrap();
    crate::device::check::gather(&device).unwrap();
    crate::device::check::resizing(&device).unwrap();
    crate::device::check::pools(&device).unwrap();
}
