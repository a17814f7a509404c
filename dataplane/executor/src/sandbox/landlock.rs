//! Landlock: no file but one, no TCP, no signals and sockets of others, by the kernel and without any
//! right. It holds for the thread that asks and those that it starts later.

use genie_gpudev::sandbox::Part;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::Unconfined;
use super::root::RANDOM;

/// The newest that is asked for; older kernels do what they can.
const NEWEST: ABI = ABI::V6;
/// LANDLOCK_CREATE_RULESET_VERSION.
const ASK_VERSION: u32 = 1;

/// The kernel's, if it has any.
pub fn version() -> Option<u32> {
    let nothing: *const libc::c_void = std::ptr::null();
    // SAFETY: with this flag it reads no attributes and gives a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, ASK_VERSION) };
    u32::try_from(version).ok().filter(|&version| version > 0)
}

/// Holds this thread from here on.
///
/// # Errors
/// The kernel does not.
pub fn apply() -> Result<(), Unconfined> {
    match restrict() {
        Ok(RulesetStatus::NotEnforced) | Err(_) => {
            Err(Unconfined::refused(Part::Files, nix::Error::EOPNOTSUPP))
        }
        Ok(_) => Ok(()),
    }
}

fn restrict() -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    if let Ok(random) = PathFd::new(RANDOM) {
        rules = rules.add_rule(PathBeneath::new(random, AccessFs::ReadFile))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
