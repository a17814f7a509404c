//! The zygotes of a node: one a tenant that has sessions, one in advance for the next tenant.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use genie_gpudev::{Sandbox, SandboxMode, ZygoteError, ZygoteInfo, ZygoteProgram};
use parking_lot::Mutex;

use super::Told;
use super::home::Home;

/// Zygotes at a time: each has some tens of megabytes of its own.
const HOMES_MAX: usize = 64;
/// A tenant's zygote that has had no executor for so long ends, where another waits for who comes.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the nursery's thread is told.
enum Wish {
    /// Something changed: look now.
    Look,
    /// The node is going.
    Stop,
}

#[derive(Default)]
struct Homes {
    by_tenant: HashMap<String, Arc<Home>>,
    /// For the next tenant.
    spare: Option<Home>,
    /// Have executors, and get no more.
    leaving: Vec<Arc<Home>>,
}

/// All zygotes.
pub struct Nursery {
    program: ZygoteProgram,
    tenants: bool,
    told: Told,
    /// What clients are told that its libraries define.
    offered: OnceLock<Vec<Vec<String>>>,
    homes: Mutex<Homes>,
    wishes: Mutex<Sender<Wish>>,
}

impl Nursery {
    /// Starts the first zygote, and a thread that looks after all.
    pub fn start(
        program: ZygoteProgram,
        tenants: bool,
        told: Told,
    ) -> Result<(Arc<Self>, ZygoteInfo), ZygoteError> {
        let (wishes, wished) = channel();
        let nursery = Arc::new(Self {
            program,
            tenants,
            told,
            offered: OnceLock::new(),
            homes: Mutex::default(),
            wishes: Mutex::new(wishes),
        });
        let (first, info) = nursery.make()?;
        describe(&info.sandbox, nursery.program.sandbox);
        nursery.homes.lock().spare = Some(first);
        let this = Arc::downgrade(&nursery);
        std::thread::Builder::new()
            .name("genie-nursery".into())
            .spawn(move || look_after(&this, &wished))?;
        Ok((nursery, info))
    }

    fn make(&self) -> Result<(Home, ZygoteInfo), ZygoteError> {
        let wishes = self.wishes.lock().clone();
        let (home, info) = Home::start(&self.program, self.told.clone(), move || {
            // The thread may have ended with the node.
            let _ = wishes.send(Wish::Look);
        })?;
        let offered = self.offered.get_or_init(|| info.operator_libraries.clone());
        if *offered != info.operator_libraries {
            return Err(ZygoteError::Library(
                "an operator library is another than it was when this node started: restart it"
                    .to_owned(),
            ));
        }
        Ok((home, info))
    }

    /// Where `tenant`'s executors are forked. Waits where there is none and none in advance.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub fn home(&self, tenant: &str) -> Result<Arc<Home>, String> {
        let mut homes = self.homes.lock();
        if let Some(home) = homes.by_tenant.get(tenant)
            && home.is_fit()
        {
            return Ok(Arc::clone(home));
        }
        if let Some(unfit) = homes.by_tenant.remove(tenant) {
            homes.leaving.push(unfit);
        }
        homes.make_room()?;
        let home = match homes.spare.take().filter(Home::is_fit) {
            Some(spare) => spare,
            None => {
                tracing::warn!("there is no zygote in advance: starting one");
                self.make().map_err(|error| error.to_string())?.0
            }
        };
        let home = Arc::new(home);
        homes.by_tenant.insert(tenant.to_owned(), Arc::clone(&home));
        drop(homes);
        let _ = self.wishes.lock().send(Wish::Look);
        Ok(home)
    }

    /// How many there are.
    pub fn zygotes(&self) -> u64 {
        let homes = self.homes.lock();
        let count =
            homes.by_tenant.len() + homes.leaving.len() + usize::from(homes.spare.is_some());
        count as u64
    }

    /// Mends those that somebody stopped.
    pub fn look_after(&self) {
        let homes = self.homes.lock();
        let all = homes.by_tenant.values().chain(&homes.leaving);
        all.map(|home| &**home)
            .chain(&homes.spare)
            .for_each(Home::look_after);
    }

    /// Replaces who crashed too often, ends who has had nothing to do for long, and has one in
    /// advance.
    fn look(&self) {
        let mut ended = Vec::new();
        let short = {
            let mut homes = self.homes.lock();
            let Homes {
                by_tenant, leaving, ..
            } = &mut *homes;
            by_tenant.retain(|_, home| {
                let idle = self.tenants && home.idle() > IDLE_MAX;
                if !home.is_fit() || idle {
                    leaving.push(Arc::clone(home));
                }
                home.is_fit() && !idle
            });
            leaving.retain(|home| {
                // Somebody may be forking from it right now.
                let stays = !home.is_empty() || Arc::strong_count(home) > 1;
                if !stays {
                    ended.push(Arc::clone(home));
                }
                stays
            });
            if homes.spare.as_ref().is_some_and(|spare| !spare.is_fit()) {
                homes.spare = None;
            }
            // Without tenants to come, the one that there is has its own.
            homes.spare.is_none() && (self.tenants || homes.by_tenant.is_empty())
        };
        // Ends them, which takes a moment.
        drop(ended);
        if !short {
            return;
        }
        match self.make() {
            Ok((home, info)) => {
                tracing::debug!(pid = info.pid, "a zygote waits for the next tenant");
                self.homes.lock().spare.get_or_insert(home);
            }
            Err(error) => tracing::warn!(%error, "there is no zygote in advance"),
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        let _ = self.wishes.lock().send(Wish::Stop);
    }
}

impl Homes {
    /// Room for one more: the one that has had nothing to do for the longest goes.
    fn make_room(&mut self) -> Result<(), String> {
        if self.by_tenant.len() + self.leaving.len() < HOMES_MAX {
            return Ok(());
        }
        let idlest = self
            .by_tenant
            .iter()
            .filter(|(_, home)| home.is_empty())
            .max_by_key(|(_, home)| home.idle())
            .map(|(tenant, _)| tenant.clone());
        match idlest.and_then(|tenant| self.by_tenant.remove(&tenant)) {
            Some(home) => {
                self.leaving.push(home);
                Ok(())
            }
            None => Err(format!(
                "{HOMES_MAX} tenants have sessions on this node, which is as many as it takes: \
                 try again later, or on another node"
            )),
        }
    }
}

fn look_after(nursery: &Weak<Nursery>, wished: &Receiver<Wish>) {
    loop {
        match wished.recv_timeout(LOOK_EVERY) {
            Ok(Wish::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wish::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(nursery) = nursery.upgrade() else {
            return;
        };
        nursery.look();
    }
}

/// Says once what holds executors in.
fn describe(sandbox: &Sandbox, mode: SandboxMode) {
    let list = |had: bool| {
        let parts = sandbox.parts.iter().filter(|held| held.had == had);
        let parts = parts.map(|held| format!("{} ({})", held.part, held.note));
        parts.collect::<Vec<_>>().join(", ")
    };
    if mode == SandboxMode::Off {
        tracing::warn!("sandbox: off: executors have what this daemon has");
        return;
    }
    tracing::info!("sandbox: {}", list(true));
    if sandbox.missing().next().is_some() {
        tracing::warn!(
            "sandbox: executors are held in less than they could be: no {}",
            list(false)
        );
    }
}
