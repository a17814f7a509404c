//! The files that executors see: none, but the source of random numbers that libtorch seeds its
//! generators from. libtorch itself is mapped already.

use std::fs;
use std::path::Path;

use genie_gpudev::sandbox::{Part, Sandbox};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

/// What stays.
pub const RANDOM: &str = "/dev/urandom";
/// Any folder that every system has: the empty root is mounted over it, in this namespace only.
const PLACE: &str = "/tmp";
/// A few folders and no bytes.
const OPTIONS: &str = "mode=0755,size=16k,nr_inodes=16";

/// Leaves the machine's files. `landlock` forbids them too, where the kernel has it.
pub fn empty(landlock: Option<u32>, sandbox: &mut Sandbox) {
    let also = landlock.map(|version| format!("Landlock {version}"));
    match enter() {
        Ok(()) => {
            let note = ["an empty root".to_owned()].into_iter().chain(also);
            let note = note.collect::<Vec<_>>().join(", ");
            sandbox.set(Part::Files, true, note);
        }
        Err(error) => {
            let note = format!("no root of its own: {}", error.desc());
            match also {
                Some(also) => sandbox.set(Part::Files, true, format!("{also} ({note})")),
                None => sandbox.set(Part::Files, false, note),
            }
        }
    }
}

fn enter() -> nix::Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Nothing done here is to be seen by others.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let bare = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("none"), PLACE, Some("tmpfs"), bare, Some(OPTIONS))?;
    // Without it random operators without a seed fail, by name; nothing else needs it.
    if let Err(error) = keep_random(bare) {
        tracing::warn!(%error, "executors have no {RANDOM}");
    }
    chdir(PLACE)?;
    // The old root ends up over the new one, and is taken off.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let still = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(NONE, "/", NONE, still | bare, NONE)
}

fn keep_random(bare: MsFlags) -> std::io::Result<()> {
    const NONE: Option<&str> = None;
    let inside = Path::new(PLACE).join(RANDOM.trim_start_matches('/'));
    if let Some(folder) = inside.parent() {
        fs::create_dir(folder)?;
    }
    fs::write(&inside, "")?;
    mount(Some(RANDOM), &inside, NONE, MsFlags::MS_BIND, NONE)?;
    let still = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, &inside, NONE, still | bare, NONE)?;
    Ok(())
}
