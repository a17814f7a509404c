//! The programs of a run: Python processes that decode.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::nodes::Owned;
use crate::interrupt;

const SCRIPT: &str = include_str!("llm.py");
/// How long a program may take for one of its two parts.
const PATIENCE: Duration = Duration::from_secs(900);
const TICK: Duration = Duration::from_millis(200);

/// What a program is asked to do.
#[derive(Clone, Debug, Serialize)]
pub struct Task {
    /// Of nodes.
    pub addresses: Vec<String>,
    /// How operators are placed.
    pub policy: String,
    /// Which model.
    pub model: String,
    /// Tokens in the cache when it is measured.
    pub context: usize,
    /// Tokens that are measured.
    pub tokens: usize,
    /// Which of the clients it is: each has a prompt of its own.
    pub client: usize,
}

/// What a program has done.
#[derive(Clone, Debug, Deserialize)]
pub struct Done {
    /// Bytes by link.
    pub links: BTreeMap<String, u64>,
    /// Answers that it waited for.
    pub round_trips: u64,
    /// Values from node to node.
    pub transfers: u64,
    /// Segments that a plan placed from end to end.
    pub placement_hits: u64,
    /// Of each token.
    pub latency_ms: Vec<f64>,
    /// For all tokens.
    pub seconds: f64,
    /// What it decoded.
    pub tokens: Vec<i64>,
    /// What `generate` gave.
    pub generated: Vec<i64>,
    /// How long that took.
    pub generate_seconds: f64,
}

/// A program that runs.
pub struct Program {
    process: Owned,
    lines: Receiver<String>,
}

impl Program {
    /// Starts one.
    ///
    /// # Errors
    /// There is no such Python.
    pub fn start(python: &Path, task: &Task) -> Result<Self> {
        let task = serde_json::to_string(task)?;
        let mut command = Command::new(python);
        command
            .args(["-c", SCRIPT, &task])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Owned::start(&mut command, None).with_context(|| {
            format!(
                "can't start {}: name a Python with --python",
                python.display()
            )
        })?;
        let out = process.child().stdout.take().context("its output")?;
        Ok(Self {
            process,
            lines: read(out)?,
        })
    }

    /// Waits until it is ready to be measured.
    ///
    /// # Errors
    /// It ended, or takes too long; Ctrl-C.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.line().map(drop)
    }

    /// Has it go on.
    ///
    /// # Errors
    /// It ended.
    pub fn go(&mut self) -> Result<()> {
        let input = self.process.child().stdin.as_mut().context("its input")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// Waits for what it has done.
    ///
    /// # Errors
    /// As [`Program::wait_until_ready`].
    pub fn wait(&mut self) -> Result<Done> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("a program said {line}"))
    }

    fn line(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(line) = self.lines.recv_timeout(TICK) {
                return Ok(line);
            }
            if interrupt::asked() {
                bail!("interrupted");
            }
            if let Some(status) = self.process.child().try_wait()? {
                let mut said = String::new();
                if let Some(errors) = self.process.child().stderr.as_mut() {
                    let _ = errors.read_to_string(&mut said);
                }
                bail!("a program ended ({status}): {}", said.trim());
            }
            if Instant::now() > deadline {
                bail!("a program takes more than {PATIENCE:?}");
            }
        }
    }
}

fn read(out: ChildStdout) -> Result<Receiver<String>> {
    let (say, lines) = channel();
    std::thread::Builder::new()
        .name("program".to_owned())
        .spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    break;
                }
            }
        })?;
    Ok(lines)
}
