//! Plans whose installation somebody waits for.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How long an executor has to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Plans of one session that may be waited for.
const INSTALLS_MAX: usize = 64;

/// Who waits for which plan.
#[derive(Debug, Default)]
pub struct Installs {
    waiting: Mutex<Vec<(u32, oneshot::Sender<bool>)>>,
}

impl Installs {
    /// Announces that `plan` will be waited for. `None` when too many are.
    #[must_use]
    pub fn expect(&self, plan: u32) -> Option<oneshot::Receiver<bool>> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= INSTALLS_MAX {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        waiting.push((plan, sender));
        Some(answer)
    }

    /// Waits for the executor's word. False where it does not come.
    pub async fn wait(&self, plan: u32, answer: oneshot::Receiver<bool>) -> bool {
        let installed = tokio::time::timeout(ANSWER_WAIT, answer).await;
        self.waiting
            .lock()
            .retain(|(waiting, sender)| *waiting != plan || !sender.is_closed());
        matches!(installed, Ok(Ok(true)))
    }

    /// The executor's word.
    pub fn answer(&self, plan: u32, installed: bool) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|(waiting, _)| *waiting == plan) {
            // Whoever asked may be gone.
            let _ = waiting.swap_remove(at).1.send(installed);
        }
    }

    /// No word will come.
    pub fn give_up(&self) {
        self.waiting.lock().clear();
    }
}
