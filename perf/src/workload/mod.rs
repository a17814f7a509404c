//! `workload`: whole programs over several nodes, placed by one policy after the other.

pub mod link;
mod nodes;
mod program;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::nodes::Node;
use self::program::{Done, Program, Task};
use self::report::{Outcome, Report};
use crate::options::workload::Workload;
use crate::{interrupt, machine};

/// Whether each node has a core of its own.
fn has_cores(options: &Workload) -> bool {
    usize::from(options.nodes) <= machine::cores()
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    model: String,
    context: usize,
    clients: usize,
    policy: String,
}

/// Runs all, and writes what came of it; whether every result was the same.
///
/// # Errors
/// Nodes or programs that can't run, after what was measured until then; Ctrl-C before the first result.
pub fn run(options: &Workload) -> Result<bool> {
    for policy in &options.policy {
        genie_planner::policy(policy)?;
    }
    let daemon = nodes::daemon(options.dataplane.as_deref());
    let mut report = Report::new(options);
    let mut cases = Vec::new();
    for model in &options.model {
        for &context in &options.context {
            for &clients in &options.clients {
                for policy in &options.policy {
                    cases.push(Case {
                        model: model.clone(),
                        context: context as usize,
                        clients: usize::from(clients),
                        policy: policy.clone(),
                    });
                }
            }
        }
    }
    let mut references = References::default();
    let mut ended = Ok(());
    for (at, case) in cases.iter().enumerate() {
        eprintln!("{}/{}: {}", at + 1, cases.len(), case.name());
        let outcome = references
            .learn(options, &daemon, case)
            .and_then(|()| measure(options, &daemon, case));
        match outcome {
            Ok(done) => {
                let same = references.are_same(case, &done);
                report.add(Outcome::new(case, &done, same));
            }
            Err(error) => {
                // What was measured so far counts.
                if !interrupt::asked() || report.is_empty() {
                    ended = Err(error.context(case.name()));
                }
                break;
            }
        }
    }
    if ended.is_ok() || !report.is_empty() {
        report.write(options.json.as_deref())?;
    }
    ended.map(|()| report.is_right())
}

impl Case {
    fn name(&self) -> String {
        let clients = match self.clients {
            1 => "1 program".to_owned(),
            many => format!("{many} programs"),
        };
        format!(
            "{}, {} tokens, {clients}, {}",
            self.model, self.context, self.policy
        )
    }
}

/// What each program gives on one device.
#[derive(Default)]
struct References(Vec<Reference>);

struct Reference {
    model: String,
    context: usize,
    client: usize,
    tokens: Vec<i64>,
    generated: Vec<i64>,
}

impl References {
    /// Finds out what the programs of a case have to give, each alone on one node.
    fn learn(&mut self, options: &Workload, daemon: &Path, case: &Case) -> Result<()> {
        for client in 0..case.clients {
            if self.find(case, client).is_some() {
                continue;
            }
            let alone = Case {
                policy: "single".to_owned(),
                clients: 1,
                ..case.clone()
            };
            let done = measure_from(options, daemon, &alone, client)?;
            let Some(done) = done.into_iter().next() else {
                bail!("a program did nothing");
            };
            self.0.push(Reference {
                model: case.model.clone(),
                context: case.context,
                client,
                tokens: done.tokens,
                generated: done.generated,
            });
        }
        Ok(())
    }

    fn find(&self, case: &Case, client: usize) -> Option<&Reference> {
        self.0.iter().find(|known| {
            known.model == case.model && known.context == case.context && known.client == client
        })
    }

    fn are_same(&self, case: &Case, done: &[Done]) -> bool {
        done.iter().enumerate().all(|(client, done)| {
            self.find(case, client).is_some_and(|known| {
                known.tokens == done.tokens && known.generated == done.generated
            })
        })
    }
}

fn measure(options: &Workload, daemon: &Path, case: &Case) -> Result<Vec<Done>> {
    measure_from(options, daemon, case, 0)
}

/// Runs the programs of a case, the first of which is client `first`.
fn measure_from(options: &Workload, daemon: &Path, case: &Case, first: usize) -> Result<Vec<Done>> {
    let folder = Folder::new()?;
    let started: Result<Vec<Node>> = (0..usize::from(options.nodes))
        .map(|number| {
            let core = has_cores(options).then_some(number);
            Node::start(daemon, &folder.0, number, core)
        })
        .collect();
    let nodes = started?;
    let mut addresses = Vec::new();
    for node in &nodes {
        let address = match options.emulate {
            Some(shape) => link::before(node.address, shape)?,
            None => node.address,
        };
        addresses.push(format!("tcp://{address}"));
    }
    let mut programs = Vec::new();
    for client in first..first + case.clients {
        let task = Task {
            addresses: addresses.clone(),
            policy: case.policy.clone(),
            model: case.model.clone(),
            context: case.context,
            tokens: options.tokens as usize,
            client,
        };
        let mut program = Program::start(&options.python, &task)?;
        // One after the other: who begins finds what the others do.
        program.wait_until_ready()?;
        programs.push(program);
    }
    programs.iter_mut().try_for_each(Program::go)?;
    programs.iter_mut().map(Program::wait).collect()
}

/// For logs, while a case runs.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let number = getrandom::u64().context("no randomness")?;
        let path = std::env::temp_dir().join(format!("genie-workload-{number:016x}"));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
