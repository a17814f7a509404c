//! Runs genie-perf and checks what it writes.

#![allow(
    dead_code,
    reason = "each test binary that has this module uses some of it"
)]

pub mod schema;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

/// genie-perf with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_genie-perf"));
    // What the machine that tests has set is not the test's.
    for name in ["GENIE_CA", "GENIE_CERT", "GENIE_KEY"] {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// What came of a run.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub errors: String,
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Its JSON, which the schema allows.
    pub fn json(&self) -> Value {
        let json = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.errors));
        schema::check(&json);
        json
    }
}

pub fn run(arguments: &[&str]) -> Ran {
    Ran::of(&command(arguments).output().expect("genie-perf starts"))
}

/// A short run with JSON on standard output.
pub fn quick(arguments: &[&str]) -> Ran {
    let mut all = arguments.to_vec();
    all.extend(["--time", "0.05", "--warmup", "0.01", "--json", "-"]);
    run(&all)
}

/// A file that goes with the value.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("genie-perf-{}-{number}-{name}", std::process::id());
        Self(std::env::temp_dir().join(unique))
    }

    pub fn name(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.0).expect("it was written")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Polling ends are not to be run beside each other: on few cores they would take one another for
/// dead. Across processes, too, since nextest has one for each test.
pub fn alone() -> Flock<File> {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/genie-perf-poll.lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    Flock::lock(file, FlockArg::LockExclusive).expect("the lock")
}

/// Whether a link is missing here, which is said.
pub fn is_missing(link: &str) -> bool {
    let ran = quick(&["local", "--link", link, "lat"]);
    let missing = [
        "no DPDK",
        "needs root",
        "no `ip`",
        "Operation not permitted",
    ];
    let failed = ran.code == Some(2);
    let reason = missing
        .iter()
        .find(|reason| failed && ran.errors.contains(**reason));
    if let Some(reason) = reason {
        println!("skipped: --link {link}: {reason}: {}", ran.errors.trim());
    }
    reason.is_some()
}

/// A process that ends with the value.
pub struct Running {
    pub process: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let out = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, out }
    }

    /// What it says next.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("it says something");
        line.trim().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server on loopback that ends with the value.
pub struct Server {
    pub process: Running,
    pub address: String,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With these arguments, too.
    pub fn with(arguments: &[&str]) -> Self {
        let listen = ["server", "--listen", "127.0.0.1:0"];
        let mut process = Running::start(&mut command(&[&listen[..], arguments].concat()));
        let line = process.line();
        let address = line.strip_prefix("listening on ").expect("its words");
        Self {
            address: address.to_owned(),
            process,
        }
    }
}
