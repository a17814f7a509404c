//! The system calls that executors may make. Recorded (strace) over all tests of operators and models
//! with one and two threads, the rings, arenas and pools; with what stands in for a call on other
//! kernels and machines. A call that is not here ends the process and is named (`trap.rs`).

use std::collections::BTreeMap;

use genie_gpudev::sandbox::Part;
use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Unconfined;

/// Any arguments.
const ALLOWED: &[i64] = &[
    // Memory: the allocator, arenas, and code that oneDNN writes.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // What is open already: rings, arenas, the socket of pools, the log.
    libc::SYS_close,
    libc::SYS_fallocate,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvmsg,
    libc::SYS_setsockopt,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // Threads: OpenMP's.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals of its own.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time, and where the kernel does not tell it without a call.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    // What and where it is.
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
];

/// Questions about files. There are none, and programs ask for many that they do without: these are
/// answered, by the empty root and Landlock, and by an error where there is neither.
const FILES: &[i64] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_statx,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
];
/// The same; libc also asks with it about what is open.
const STAT: i64 = libc::SYS_newfstatat;

/// Answered as by a kernel that does not have them: programs then go another way. `clone3` keeps its
/// flags where a filter can't see them; with ENOSYS libc uses `clone`.
const ABSENT: &[i64] = &[
    libc::SYS_clone3,
    libc::SYS_get_mempolicy,
    libc::SYS_ioctl,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
];

/// As in linux/seccomp.h.
const SET_MODE_FILTER: libc::c_uint = 1;
const SPEC_ALLOW: libc::c_ulong = 1 << 2;
/// As in linux/prctl.h.
const GET_SPECULATION: libc::c_int = 52;
const SPECULATION_DISABLED: [libc::c_int; 2] = [1 << 2, 1 << 3];
const SET_VMA: u64 = 0x53_56_4d_41;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters this process's calls from here on. `files_held`: questions about files may go to the
/// kernel.
///
/// # Errors
/// The kernel does not filter.
pub fn apply(files_held: bool) -> Result<(), Unconfined> {
    let refused = |error| Unconfined::refused(Part::Calls, error);
    let programs = programs(files_held).map_err(|_| refused(Errno::EINVAL))?;
    programs
        .iter()
        .try_for_each(|program| install(program).map_err(refused))
}

/// In the order in which they are installed; of two answers the kernel takes the stricter.
fn programs(files_held: bool) -> seccompiler::Result<Vec<BpfProgram>> {
    let errno = |errno: libc::c_int| SeccompAction::Errno(errno.cast_unsigned());
    let mut programs = vec![quiet(ABSENT, errno(libc::ENOSYS))?];
    if !files_held {
        programs.push(quiet(FILES, errno(libc::EACCES))?);
    }
    let mut rules: Rules = [ALLOWED, FILES, ABSENT]
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    rules.insert(STAT, Vec::new());
    rules.extend(conditional()?);
    programs.push(compile(rules, SeccompAction::Trap, SeccompAction::Allow)?);
    Ok(programs)
}

fn quiet(calls: &[i64], answer: SeccompAction) -> seccompiler::Result<BpfProgram> {
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    compile(rules, SeccompAction::Allow, answer)
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> seccompiler::Result<BpfProgram> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, otherwise, listed, machine)?.try_into()?)
}

/// Calls that are allowed with some arguments.
fn conditional() -> seccompiler::Result<Rules> {
    let is = |argument, value| compare(argument, SeccompCmpOp::Eq, value);
    let one_of = |argument, values: &[u64]| -> seccompiler::Result<Vec<SeccompRule>> {
        let rules = values.iter().map(|&value| rule(is(argument, value)?));
        rules.collect()
    };
    // A thread, and in no namespace but its own.
    let thread = libc::CLONE_THREAD as u64;
    let elsewhere = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];
    let elsewhere = elsewhere
        .into_iter()
        .fold(0, |all, flag| all | u64::from(flag.cast_unsigned()));
    let clone = compare(0, SeccompCmpOp::MaskedEq(thread | elsewhere), thread)?;
    // Its own end is its own affair, and nobody else's: the handler of SIGSYS stays.
    let itself = u64::from(std::process::id());
    let abort = SeccompRule::new(vec![is(0, itself)?, is(2, libc::SIGABRT as u64)?])?;
    let handler = compare(0, SeccompCmpOp::Ne, libc::SIGSYS as u64)?;
    let files = [
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_GETFL,
        libc::F_GET_SEALS,
        libc::F_SETFD,
    ];
    let names = [
        libc::PR_GET_NAME as u64,
        libc::PR_SET_NAME as u64,
        GET_SPECULATION as u64,
        SET_VMA,
    ];
    Ok(Rules::from([
        (libc::SYS_clone, vec![rule(clone)?]),
        (libc::SYS_fcntl, one_of(1, &files.map(|file| file as u64))?),
        (libc::SYS_prctl, one_of(0, &names)?),
        (libc::SYS_prlimit64, one_of(0, &[0, itself])?),
        (libc::SYS_rt_sigaction, vec![rule(handler)?]),
        (libc::SYS_tgkill, vec![abort]),
    ]))
}

fn rule(condition: SeccompCondition) -> seccompiler::Result<SeccompRule> {
    Ok(SeccompRule::new(vec![condition])?)
}

/// The lower half of an argument: all of these are ints.
fn compare(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> seccompiler::Result<SeccompCondition> {
    Ok(SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?)
}

/// A filter makes older kernels switch on speculation barriers, which cost operators up to half of
/// their speed: they are against one that reads its own process's memory, which is its client's.
fn install(program: &BpfProgram) -> nix::Result<()> {
    let filter = libc::sock_fprog {
        len: libc::c_ushort::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: `filter` describes the program, which the kernel copies; both have the layout of
        // linux/filter.h.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const filter)
        })
    };
    match install(SPEC_ALLOW) {
        Err(Errno::EINVAL) => install(0),
        other => other,
    }
    .map(drop)
}

/// Whether speculation is restricted in this process.
pub fn has_barriers() -> bool {
    // Store bypass and indirect branches.
    [0, 1].into_iter().any(|which| {
        // SAFETY: a plain system call that gives a number.
        let state = unsafe { libc::prctl(GET_SPECULATION, which, 0, 0, 0) };
        state >= 0 && SPECULATION_DISABLED.iter().any(|bit| state & bit != 0)
    })
}

/// For a person.
pub fn describe(barriers: bool) -> String {
    let count = ALLOWED.len() + FILES.len() + 1 + conditional().map_or(0, |rules| rules.len());
    let barriers = if barriers { "on" } else { "off" };
    format!("{count} allowed, speculation barriers {barriers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_in_two_lists() {
        let mut all = [ALLOWED, FILES, ABSENT, &[STAT]].concat();
        all.extend(conditional().unwrap().keys());
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn filters_compile() {
        assert_eq!(programs(true).unwrap().len(), 2);
        assert_eq!(programs(false).unwrap().len(), 3);
    }
}
