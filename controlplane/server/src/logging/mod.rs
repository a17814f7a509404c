//! The log. Who says something never waits for whoever reads it, and never fails: lines leave by a
//! thread of their own, those that find no room are lost and counted. What repeats is left out after
//! a while, which is said.
//!
//! - [`queue`]: lines on their way.
//! - [`paced`]: how often one line of the program may be said.
//! - [`outputs`]: standard output and error, also of libraries and of the processes below.

mod outputs;
mod paced;
mod queue;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::values::LogFilter;
pub use queue::lost;
use queue::{Lines, Queue};

/// Libraries that say too much below this, unless asked by name.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,rustls=info,tonic=info,tower=info";

/// Whose log it is.
static PROGRAM: OnceLock<&str> = OnceLock::new();

/// The log of this process.
pub struct Log {
    queue: Arc<Queue>,
    outputs: Option<outputs::Outputs>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Starts it, of `program`: from now on standard output and error go through it too.
    ///
    /// # Errors
    /// What the system says of descriptors and threads.
    pub fn start(program: &'static str, filter: &LogFilter) -> io::Result<Self> {
        let _ = PROGRAM.set(program);
        let (to, is_terminal) = outputs::real()?;
        let queue = Queue::start(to)?;
        let outputs = outputs::take(Arc::clone(&queue))?;
        let log = Self::subscribe(queue, Some(outputs), filter, is_terminal);
        Ok(log)
    }

    fn subscribe(
        queue: Arc<Queue>,
        outputs: Option<outputs::Outputs>,
        filter: &LogFilter,
        ansi: bool,
    ) -> Self {
        let (filter, handle) = reload::Layer::new(directives(filter));
        let lines = fmt::layer()
            .with_ansi(ansi)
            .with_writer(Lines::new(Arc::clone(&queue)));
        let registry = tracing_subscriber::registry().with(filter);
        // Somebody has set another, and has the lines.
        let _ = registry
            .with(paced::Paced::default())
            .with(lines)
            .try_init();
        Self {
            queue,
            outputs,
            filter: handle,
        }
    }

    /// What changes it while it runs.
    #[must_use]
    pub fn control(&self) -> LogControl {
        LogControl(self.filter.clone())
    }

    /// Waits until what was said has left, at most `patience`.
    pub fn finish(&self, patience: Duration) {
        let deadline = std::time::Instant::now() + patience;
        if let Some(outputs) = &self.outputs {
            outputs.wait_empty(deadline);
        }
        self.queue.wait_empty(deadline);
    }
}

/// Changes what is logged.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// Logs this from now on.
    pub fn set(&self, filter: &LogFilter) {
        if let Err(error) = self.0.reload(directives(filter)) {
            tracing::warn!("what is logged could not be changed: {error}");
        }
    }
}

fn directives(filter: &LogFilter) -> EnvFilter {
    EnvFilter::new(format!("{QUIET},{}", filter.0))
}

fn line(text: &str) -> Vec<u8> {
    let program = PROGRAM.get().unwrap_or(&"genie");
    format!("{program}: {text}\n").into_bytes()
}
