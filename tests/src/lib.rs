//! Real processes for tests that cross crates: a daemon with its executor, on a free loopback
//! port, stopped with the test.
//!
//! The programs are the ones beside the test program: `cargo test` (and nextest) builds them with
//! the workspace. A test without libtorch to give to the executor says so and passes by.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use genie_client::address::Address;
use genie_client::control;

/// Path of a program of this workspace.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test program has a path");
    let folder = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("target/PROFILE/deps");
    folder.join(name)
}

/// Whether programs and libtorch are here; says what is missing.
#[must_use]
pub fn is_ready() -> bool {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut missing = Vec::new();
    for name in ["genie-dataplane", "genie-executor", "genie-perf"] {
        if !program(name).exists() {
            missing.push(format!(
                "{name} is not built (cargo build of the workspace makes it)"
            ));
        }
    }
    if !root.join(".venv/torch/lib").exists() && std::env::var_os("GENIE_LIBTORCH").is_none() {
        missing.push("libtorch is not here (scripts/setup installs it)".to_owned());
    }
    for what in &missing {
        eprintln!("skipped: {what}");
    }
    missing.is_empty()
}

/// A daemon that dies with this value.
pub struct Daemon {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Daemon {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// It does not get ready within 20 s.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(program("genie-dataplane"))
            .args(["--listen", &address])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let mut daemon = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        let target = Address::parse(&daemon.address).expect("an address");
        loop {
            match control::status(&target, None, Duration::from_secs(1)) {
                Ok(status) if status.ready => return daemon,
                Ok(status) => assert!(
                    Instant::now() < deadline,
                    "not ready: {}",
                    status.not_ready_reason
                ),
                Err(error) => {
                    if Instant::now() > deadline || daemon.child.try_wait().ok().flatten().is_some()
                    {
                        daemon.fail(&error.to_string());
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn fail(&mut self, why: &str) -> ! {
        let _ = self.child.kill();
        let mut log = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            let _ = stderr.read_to_string(&mut log);
        }
        panic!("the daemon did not get ready: {why}\n{log}");
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never: it was parsed before.
    #[must_use]
    pub fn target(&self) -> Address {
        Address::parse(&self.address).expect("an address")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
