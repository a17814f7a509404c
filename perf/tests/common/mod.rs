//! Runs genie-perf and checks what it writes.

#![allow(
    dead_code,
    reason = "each test binary that has this module uses some of it"
)]

pub mod schema;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

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

/// A server that ends with the value.
pub struct Server {
    process: Child,
    pub address: String,
}

impl Server {
    pub fn start() -> Self {
        use std::io::{BufRead as _, BufReader};
        let mut process = command(&["server", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("genie-perf starts");
        let mut line = String::new();
        let out = process.stdout.take().expect("a pipe");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .expect("its words");
        Self {
            address: address.to_owned(),
            process,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
