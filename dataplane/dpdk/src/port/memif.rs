//! What a memif port needs beyond an ordinary one: see [`super::control`].

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use genie_dpdk_sys::Api;

use super::control;
use super::error::PortError;
use super::gate::Gate;
use super::vdev::{Memif, MemifRole};
use crate::Mempool;

/// How long a client waits for the server's answer, on a connection that stands, before it connects
/// anew.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long it waits after a server that is not there, or has refused it.
const RETRY: Duration = Duration::from_millis(5);
/// DPDK's names for the driver's messages, of which none but emergencies is let through while
/// connecting: that no server is there is no error here. (1 and 6: emergency, and the default.)
const LOG_TYPE: &std::ffi::CStr = c"pmd.net.memif*";
const LOG_EMERGENCY: u32 = 1;
const LOG_NOTICE: u32 = 6;

/// The link of a memif port.
#[derive(Debug)]
pub(super) struct MemifLink {
    role: MemifRole,
    socket: PathBuf,
    pub(super) buffer_bytes: u16,
    pub(super) gate: Arc<Gate>,
    last_try: Mutex<Try>,
}

/// When a client connected last, and by which callback its connection is known, if it came about.
#[derive(Debug)]
struct Try {
    at: Instant,
    connection: Option<u64>,
}

impl MemifLink {
    /// Adds the device by `add`, for a port with so many queues in both directions.
    pub(super) fn probe<T>(
        memif: &Memif,
        queues: usize,
        pool: &Mempool,
        add: impl FnOnce() -> Result<T, PortError>,
    ) -> Result<(T, Self), PortError> {
        let (data_bytes, buffer_bytes) = (pool.config().data_bytes, memif.buffer_bytes);
        if data_bytes < buffer_bytes {
            return Err(PortError::PoolTooSmall {
                address: memif.socket.display().to_string(),
                data_bytes,
                buffer_bytes,
            });
        }
        let link = Self {
            role: memif.role,
            socket: memif.socket.clone(),
            buffer_bytes,
            gate: Gate::new(queues),
            last_try: Mutex::new(Try {
                at: Instant::now(),
                connection: None,
            }),
        };
        let mut ports = control::lock();
        let opened = match link.role {
            MemifRole::Server => {
                remove_if_stale(&link.socket);
                let (opened, hooked) = ports.listen(&link.socket, add);
                if opened.is_err() {
                    let left = ports.silence(&link.socket);
                    debug_assert!(left.is_empty(), "the driver listens for no port");
                } else if !hooked {
                    tracing::error!(
                        socket = %link.socket.display(),
                        "no listener was seen: DPDK was in this process before Genie loaded it, \
                         and a peer that ends may crash it; or a client here has this socket"
                    );
                }
                opened
            }
            MemifRole::Client => add(),
        };
        let opened = opened?;
        ports.add(&link.gate);
        Ok((opened, link))
    }

    /// Starts the port. A client whose server is not there stays stopped: [`Self::reconnect`].
    pub(super) fn start(&self, api: &Api, port: u16) {
        let _ports = control::lock();
        self.try_start(api, port);
    }

    /// Says whether it tried.
    pub(super) fn reconnect(&self, api: &Api, port: u16) -> bool {
        if self.role != MemifRole::Client || !self.is_due() {
            return false;
        }
        let _ports = control::lock();
        self.gate.shut();
        // SAFETY: the port is open, and no queue of it is inside the driver. The driver connects
        // only when it starts.
        unsafe { api.rte_eth_dev_stop(port) };
        self.gate.set_stopped(true);
        self.try_start(api, port);
        true
    }

    fn is_due(&self) -> bool {
        let last = self.last_try.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = last.connection.is_some_and(control::is_registered);
        last.at.elapsed() >= if stands { HANDSHAKE } else { RETRY }
    }

    /// With the control path locked and no queue inside.
    fn try_start(&self, api: &Api, port: u16) {
        let start = || {
            // SAFETY: a pattern, and a port that is configured and stopped.
            unsafe {
                api.rte_log_set_level_pattern(LOG_TYPE.as_ptr(), LOG_EMERGENCY);
                let result = api.rte_eth_dev_start(port);
                api.rte_log_set_level_pattern(LOG_TYPE.as_ptr(), LOG_NOTICE);
                result
            }
        };
        let (result, made) = control::registered_by(start);
        *self.last_try.lock().unwrap_or_else(PoisonError::into_inner) = Try {
            at: Instant::now(),
            connection: made.first().copied(),
        };
        self.gate.set_stopped(result != 0);
        self.gate.open();
    }

    /// Closes the port by `close`.
    pub(super) fn close(self, api: &'static Api, close: impl FnOnce()) {
        let mut ports = control::lock();
        self.gate.shut();
        self.gate.set_stopped(true);
        close();
        ports.remove(&self.gate);
        let left = match self.role {
            MemifRole::Server => ports.silence(&self.socket),
            MemifRole::Client => Vec::new(),
        };
        drop(ports);
        control::retire(api, &left);
    }
}

/// Removes the socket of a server that was killed, in whose way a new one would be.
fn remove_if_stale(socket: &Path) {
    let is_socket = socket
        .symlink_metadata()
        .is_ok_and(|file| file.file_type().is_socket());
    // Whoever listens answers this stream with another error: the driver's are of another type.
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(socket).err().is_some_and(refused) {
        let _ = std::fs::remove_file(socket);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::remove_if_stale;

    #[test]
    fn only_a_socket_without_a_server_is_removed() {
        let path = std::env::temp_dir().join(format!("genie-stale-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        remove_if_stale(&path);
        assert!(UnixStream::connect(&path).is_ok(), "somebody listens");
        drop(listener);
        remove_if_stale(&path);
        assert!(!path.exists(), "nobody does");
        std::fs::write(&path, "a file").unwrap();
        remove_if_stale(&path);
        assert!(path.exists(), "not ours to remove");
        std::fs::remove_file(&path).unwrap();
    }
}
