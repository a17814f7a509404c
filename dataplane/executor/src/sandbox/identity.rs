//! Whose the zygote and its executors are, and what they may.

use caps::{CapSet, Capability, CapsHashSet};
use genie_gpudev::sandbox::{Part, Sandbox};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid};

use super::Unconfined;

/// Users that nobody else has: beyond those of systemd, containers and directories. A zygote takes the
/// one of its process number.
const OWN_BASE: u32 = 1_900_000_000;
/// Process numbers are below this.
const OWN_COUNT: u32 = 1 << 22;
/// Where a container knows fewer users.
const NOBODY: u32 = 65_534;

/// Becomes a user of its own where that is allowed, and keeps its capabilities for what comes next.
pub fn own_user(sandbox: &mut Sandbox) {
    if !Uid::effective().is_root() {
        let why = "the daemon does not run as root, and there are no user namespaces";
        sandbox.set(Part::User, false, why);
        return;
    }
    let own = OWN_BASE + std::process::id() % OWN_COUNT;
    let became = become_user(own).or_else(|_| become_user(NOBODY));
    match became {
        Ok(user) => sandbox.set(Part::User, true, format!("user {user}")),
        Err(error) => sandbox.set(Part::User, false, format!("no user of its own: {error}")),
    }
}

/// Whether this process's user is one that nobody else has.
pub fn is_own() -> bool {
    (OWN_BASE..OWN_BASE + OWN_COUNT).contains(&Uid::current().as_raw())
}

fn become_user(user: u32) -> nix::Result<u32> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    nix::unistd::setgroups(&[])?;
    prctl::set_keepcaps(true)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    prctl::set_keepcaps(false)?;
    if let Ok(permitted) = caps::read(None, CapSet::Permitted) {
        // What is not there can't be raised; who needs it will say so.
        let _ = caps::set(None, CapSet::Effective, &permitted);
    }
    // Its own /proc files would be root's otherwise, and namespaces are set up through them.
    prctl::set_dumpable(true)?;
    Ok(user)
}

/// Of the zygote's capabilities only the one for pid namespaces stays, and none can be had again.
pub fn keep_what_forks(sandbox: &mut Sandbox) {
    let had = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let wanted = CapsHashSet::from([Capability::CAP_SYS_ADMIN]);
    let kept: CapsHashSet = had.intersection(&wanted).copied().collect();
    let _ = caps::clear(None, CapSet::Inheritable);
    let dropped = caps::set(None, CapSet::Effective, &kept)
        .and_then(|()| caps::set(None, CapSet::Permitted, &kept));
    match dropped {
        Ok(()) => sandbox.set(Part::Capabilities, true, "none"),
        Err(error) => sandbox.set(Part::Capabilities, false, error.to_string()),
    }
    match prctl::set_no_new_privs() {
        Ok(()) => sandbox.set(Part::Privileges, true, "no_new_privs"),
        Err(error) => sandbox.set(Part::Privileges, false, error.to_string()),
    }
}

/// In an executor: no capability is left.
///
/// # Errors
/// One is.
pub fn drop_all() -> Result<(), Unconfined> {
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)
            .map_err(|_| Unconfined::refused(Part::Capabilities, nix::Error::EPERM))?;
    }
    Ok(())
}
