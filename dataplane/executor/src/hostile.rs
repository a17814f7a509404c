//! Every operator that a client may name, with arguments that mean harm: nothing but its tensors may be
//! touched. Children are forked for it, so that one that dies is a finding and not the end.
//!
//! `GENIE_SEED=N GENIE_OPERATOR=aten::add.Tensor cargo nextest run ... hostile` replays one.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write as _;

/// Deaths that remain, with their reasons.
const KNOWN: &str = include_str!("../crashes.txt");
/// Children of one operator that may die before the next one's turn.
const DEATHS_MAX: u32 = 3;
/// A call that takes longer is slow: it ends, is counted, and touched nothing outside of a tensor.
const SECONDS_MAX: u32 = 4;

unsafe extern "C" {
    fn genie_hostile_start(threads: u32, fault: *mut c_char, room: usize) -> c_int;
    fn genie_hostile_call(
        name: *const c_char,
        overload: *const c_char,
        seed: u64,
        text: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// What parent and child share.
#[repr(C)]
struct Page {
    /// The call that is being made.
    at: u64,
    /// Calls by what came of them: ran, refused by a check, raised by libtorch, spoiled memory, could
    /// not be made.
    outcomes: [u64; 5],
    /// Calls that took too long.
    slow: u64,
    text: [c_char; 8192],
    fault: [c_char; 256],
}

const SPOILED: usize = 3;

struct Finding {
    operator: String,
    call: u64,
    how: String,
    arguments: String,
}

fn shared() -> *mut Page {
    // SAFETY: a new mapping of zeroes, which are a valid Page.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<Page>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(raw, libc::MAP_FAILED);
    raw.cast()
}

fn seed_of(base: u64, operator: &str, call: u64) -> u64 {
    let named = operator.bytes().fold(base, |hash, byte| {
        hash.wrapping_mul(1_099_511_628_211) ^ u64::from(byte)
    });
    named.wrapping_add(call.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// In a child: calls from where the page says, to the end.
fn make_calls(page: *mut Page, operator: &str, calls: u64, base: u64) -> ! {
    let (name, overload) = operator.split_once('.').unwrap_or((operator, ""));
    let (name, overload) = (CString::new(name).unwrap(), CString::new(overload).unwrap());
    // SAFETY: the page is mapped, the names are C strings, and this process has one thread. It ends
    // without the exit handlers of the parent's libraries.
    unsafe {
        let quiet = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &quiet);
        // Warnings, and what MKL has to say.
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY);
        libc::dup2(nowhere, 1);
        libc::dup2(nowhere, 2);
        let threads = 1 + u32::from(seed_of(base, operator, 0) & 1 == 0);
        let (text, fault) = (&raw mut (*page).text, &raw mut (*page).fault);
        genie_hostile_start(threads, fault.cast(), 256);
        while (*page).at < calls {
            libc::alarm(SECONDS_MAX);
            let seed = seed_of(base, operator, (*page).at);
            let outcome =
                genie_hostile_call(name.as_ptr(), overload.as_ptr(), seed, text.cast(), 8192);
            (*page).outcomes[outcome as usize] += 1;
            if outcome as usize == SPOILED {
                libc::_exit(9);
            }
            (*page).at += 1;
        }
        libc::_exit(0)
    }
}

/// All calls of one operator; how its children died.
fn try_operator(page: *mut Page, operator: &str, calls: u64, base: u64, found: &mut Vec<Finding>) {
    let mut deaths = 0;
    // SAFETY: the page stays mapped; a child that could write it is dead whenever it is read. The
    // process has one thread besides the harness of tests, which holds no lock that a child takes.
    unsafe {
        (*page).at = 0;
        while (*page).at < calls && deaths < DEATHS_MAX {
            (*page).text[0] = 0;
            (*page).fault[0] = 0;
            let child = libc::fork();
            assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
            if child == 0 {
                make_calls(page, operator, calls, base);
            }
            let mut status = 0;
            libc::waitpid(child, &mut status, 0);
            if status == 0 {
                return;
            }
            let said = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
            let fault = said((&raw const (*page).fault).cast());
            if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM {
                deaths += 1;
                (*page).slow += 1;
                (*page).at += 1;
                continue;
            }
            let how = if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 9 {
                "wrote around a tensor".to_owned()
            } else if fault.is_empty() {
                format!("status {status}")
            } else {
                fault
            };
            found.push(Finding {
                operator: operator.to_owned(),
                call: (*page).at,
                how,
                arguments: said((&raw const (*page).text).cast()),
            });
            deaths += 1;
            (*page).at += 1;
        }
    }
}

/// The reason that the table has for this death. What touches memory has none.
fn reason(finding: &Finding) -> Option<&'static str> {
    let base = finding.operator.trim_start_matches("aten::");
    let base = base.split('.').next().unwrap_or(base);
    KNOWN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let (what, reason) = line.split_once('#')?;
            let (how, names) = what.split_once(':')?;
            let named = names.split_whitespace().any(|name| {
                name.strip_suffix('*')
                    .map_or(name == base, |start| base.starts_with(start))
            });
            (named && finding.how == how.trim()).then_some(reason.trim())
        })
}

fn run(calls: u64) {
    let seed = std::env::var("GENIE_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(1);
    let only = std::env::var("GENIE_OPERATOR").ok();
    println!("GENIE_SEED={seed}");
    let page = shared();
    let mut found = Vec::new();
    let mut tried = 0;
    for operator in include_str!("../operators.txt").lines() {
        if only.as_ref().is_none_or(|name| name == operator) {
            tried += 1;
            try_operator(page, operator, calls, seed, &mut found);
        }
    }
    // SAFETY: no child is alive.
    let (outcomes, slow) = unsafe { ((*page).outcomes, (*page).slow) };
    let mut failures = String::new();
    for finding in &found {
        let line = format!(
            "GENIE_SEED={seed} GENIE_OPERATOR={} call {}: {} ({})",
            finding.operator, finding.call, finding.how, finding.arguments
        );
        match reason(finding) {
            Some(why) => println!("known: {line}: {why}"),
            None => writeln!(failures, "{line}").unwrap(),
        }
    }
    let [ran, refused, raised, ..] = outcomes;
    println!(
        "{tried} operators: {ran} calls ran, {refused} refused by a check, {raised} by libtorch, \
         {slow} slow, {} deaths",
        found.len()
    );
    assert!(failures.is_empty(), "\n{failures}");
    assert!(tried > 0 && ran > 0 && (only.is_some() || refused > 0));
}

#[test]
fn hostile_calls_touch_nothing_but_their_tensors() {
    run(3);
}

#[test]
#[ignore = "takes minutes; scripts/test --full"]
fn a_hundred_hostile_calls_of_every_operator_touch_nothing_but_their_tensors() {
    run(100);
}
