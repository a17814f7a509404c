//! Namespaces of the zygote's own. All executors of a zygote are one tenant's, and share them, but
//! for process numbers (`process.rs`).

use std::fs;

use genie_gpudev::sandbox::{Part, Sandbox};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

/// Enters as many as the kernel allows; files are for `root.rs`. With `own_user` a user namespace may
/// stand in for a user of its own.
pub fn enter(own_user: bool, sandbox: &mut Sandbox) {
    let user = enter_user();
    if own_user && !sandbox.has(Part::User) && user.is_ok() {
        let note = "the daemon's user, without its rights: a user namespace";
        sandbox.set(Part::User, true, note);
    }
    let why = |error: nix::Error| match &user {
        Ok(()) => error.desc().to_owned(),
        Err(user) => format!("{}, and no user namespaces: {user}", error.desc()),
    };
    for (part, flag, note) in [
        (Part::Network, CloneFlags::CLONE_NEWNET, "an empty network"),
        (Part::Ipc, CloneFlags::CLONE_NEWIPC, "its tenant's own"),
    ] {
        match unshare(flag) {
            Ok(()) => sandbox.set(part, true, note),
            Err(error) => sandbox.set(part, false, why(error)),
        }
    }
    // Names and control groups: nothing is lost where there are none.
    let _ = unshare(CloneFlags::CLONE_NEWUTS);
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP);
    // Tried by the first fork.
    sandbox.set(Part::Processes, true, "its session's own");
}

/// A user namespace gives the rights to make the others. Who is root does without.
fn enter_user() -> Result<(), String> {
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| error.desc().to_owned())?;
    // The order is the kernel's: groups can't be mapped while they could be dropped.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| format!("/proc/self/{file}: {error}"))?;
    }
    Ok(())
}
