//! A daemon from its first line to its last.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::logging::{Log, LogControl};
use crate::status::{self, StatusArgs};
use crate::values::LogFilter;

/// Exit status where nothing was started.
const REFUSED: u8 = 2;
/// How long what was logged has to leave at the end.
const LAST_LINES: Duration = Duration::from_millis(300);
/// Threads of the control side.
const WORKERS: usize = 2;
/// Threads for analysis and for what blocks.
const BLOCKING_MAX: usize = 4;
/// Descriptors that a daemon may have open, if it may choose.
const FILES_MAX: u64 = 1 << 16;

/// A daemon, by its name.
#[derive(Clone, Copy, Debug)]
pub struct Program(pub &'static str);

/// How its keys are read, every layer of them, and what they come to.
pub type Read<S, C, E> = Box<dyn Fn() -> Result<(S, C), E> + Send>;

/// What SIGHUP reads again.
pub struct Reload<S, C, E> {
    /// Every layer of the configuration.
    pub read: Read<S, C, E>,
    /// As they are now.
    pub settings: S,
    /// What is logged.
    pub log: LogControl,
}

impl Program {
    /// Says why nothing was started.
    pub fn refuse(self, error: &dyn Display) -> ExitCode {
        eprintln!("{}: {error}", self.0);
        ExitCode::from(REFUSED)
    }

    /// `config check`: what came of reading `file`.
    pub fn checked<C>(self, file: &Path, read: Result<C, impl Display>) -> ExitCode {
        match read {
            Ok(_) => {
                println!("{}: fine", file.display());
                ExitCode::SUCCESS
            }
            Err(error) => self.refuse(&error),
        }
    }

    /// `status`.
    pub fn status(self, args: &StatusArgs) -> ExitCode {
        match runtime(1) {
            Ok(runtime) => runtime.block_on(status::run(args)),
            Err(error) => self.refuse(&error),
        }
    }

    /// Reads the configuration, starts the log that it wants, and serves.
    pub fn serve<S, C, E, X, F>(
        self,
        read: Read<S, C, E>,
        log: impl Fn(&C) -> &LogFilter,
        serve: impl FnOnce(C, Reload<S, C, E>) -> F,
    ) -> ExitCode
    where
        E: Display,
        X: Display,
        F: Future<Output = Result<ExitCode, X>>,
    {
        let (settings, config) = match read() {
            Ok(read) => read,
            Err(error) => return self.refuse(&error),
        };
        let log = match Log::start(self.0, log(&config)) {
            Ok(log) => log,
            Err(error) => return self.refuse(&error),
        };
        raise_files_max();
        let reload = Reload {
            read,
            settings,
            log: log.control(),
        };
        let code = match runtime(WORKERS) {
            Ok(runtime) => {
                let ended = runtime.block_on(serve(config, reload));
                // Nothing that still runs is worth waiting for.
                runtime.shutdown_background();
                ended.unwrap_or_else(|error| self.refuse(&error))
            }
            Err(error) => self.refuse(&error),
        };
        log.finish(LAST_LINES);
        code
    }
}

impl<S, C, E> Reload<S, C, E> {
    /// What was read holds: `changed` differs from before, of which `reloadable` needs no restart.
    pub fn holds(
        &mut self,
        settings: S,
        changed: Vec<&'static str>,
        reloadable: &[&str],
        has_certificates: bool,
    ) {
        let (now, later): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .partition(|key| reloadable.contains(key));
        tracing::info!(
            "reloaded: {}{}",
            if has_certificates {
                "certificates; "
            } else {
                ""
            },
            listed(&now)
        );
        if !later.is_empty() {
            tracing::warn!("changed, and needs a restart: {}", listed(&later));
        }
        self.settings = settings;
    }
}

fn listed(keys: &[&str]) -> String {
    match keys {
        [] => "nothing else has changed".to_owned(),
        keys => keys.join(", "),
    }
}

fn runtime(workers: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_name("control")
        .enable_all()
        .build()
}

/// Connections, and what processes share, take descriptors: more than the 1,024 that a process has where
/// nobody chose.
fn raise_files_max() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(FILES_MAX).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    });
    if let Err(error) = raised {
        tracing::debug!("descriptors stay as few as they are: {error}");
    }
}
