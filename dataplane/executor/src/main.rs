//! `genie-executor`: the process that holds libtorch, apart from the daemon, so that a crash in
//! a kernel ends one session and nothing else. `genie-dataplane` starts it.

mod executor;
mod ffi;
#[cfg(test)]
mod hostile;
mod lean;
mod libraries;
mod machine;
mod memory;
mod oom;
mod operators;
mod places;
mod port;
mod profile;
mod sandbox;
mod slowed;
mod transfers;
mod zygote;

use std::ffi::{OsStr, OsString};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::exit;

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Paths of libraries follow what is text.
    let texts = arguments.iter().map_while(|one| one.to_str());
    match texts.take(5).collect::<Vec<_>>()[..] {
        ["--version"] => {
            println!(
                "genie-executor {} (libtorch {})",
                env!("CARGO_PKG_VERSION"),
                ffi::torch_version()
            );
        }
        ["zygote", "--socket", number, "--sandbox", profile] => {
            let Some(profile) = sandbox::Profile::parse(profile) else {
                eprintln!("genie-executor: --sandbox {profile}: off, host or accelerator");
                exit(2);
            };
            let Some(socket) = inherited_socket(number) else {
                eprintln!("genie-executor: --socket {number}: not a socket of the daemon's");
                exit(2);
            };
            oom::prefer_this();
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_writer(std::io::stderr)
                .init();
            let libraries: Vec<&OsStr> = arguments[5..].iter().map(OsString::as_os_str).collect();
            exit(zygote::run(socket, profile, &libraries));
        }
        _ => {
            eprintln!(
                "genie-executor is started by genie-dataplane, which forks one executor a \
                 session from it.\nStart `genie-dataplane --listen 127.0.0.1:7700` instead."
            );
            exit(2);
        }
    }
}

/// The socket that the daemon left open for this process.
fn inherited_socket(number: &str) -> Option<OwnedFd> {
    let raw: i32 = number.parse().ok().filter(|&raw| raw > 2)?;
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `kind` and `len` describe a valid place; a descriptor that is not open gives an
    // error.
    let known = unsafe {
        libc::getsockopt(
            raw,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            std::ptr::from_mut(&mut kind).cast(),
            &mut len,
        )
    };
    // SAFETY: it is an open socket which the daemon opened for this process alone.
    (known == 0 && kind == libc::SOCK_SEQPACKET).then(|| unsafe { OwnedFd::from_raw_fd(raw) })
}
