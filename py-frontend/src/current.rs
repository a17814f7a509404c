//! The session that this process uses now.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use genie_client::address::{Address, Tls};
use genie_client::control::ControlError;
use genie_client::engine::{Error, Exception, Host as _, Session};
use genie_client::opening::{self, OpenError, Why};
use genie_control_api::ErrorCode;
use genie_control_api::v1::OpenSessionRequest;
use genie_session::frame::PROTOCOL_VERSION;
use parking_lot::Mutex;

use crate::fork;
use crate::host::Python;
use crate::target::Target;

/// The session in use. Sessions are never freed, only emptied: another thread may be inside one,
/// and a process has few.
static CURRENT: AtomicPtr<Session> = AtomicPtr::new(std::ptr::null_mut());
/// Held while connecting or disconnecting.
static CONNECTING: Mutex<Book> = Mutex::new(Book {
    sessions: Vec::new(),
    numbered: 0,
    torch_version: String::new(),
    schema_hash: 0,
    unasked: None,
});
static FALLBACKS: AtomicU64 = AtomicU64::new(0);

struct Book {
    sessions: Vec<&'static Session>,
    /// Devices that sessions have had so far.
    numbered: u16,
    torch_version: String,
    schema_hash: u64,
    /// What the session in use was opened with, if nobody called for it: who does so then has it, or another
    /// in its place.
    unasked: Option<Target>,
}

unsafe extern "C" {
    /// shim/usage.h
    fn genie_backend_session_changed(first: u16);
}

/// What the handshake compares; and from now on a forked child knows that it is one.
pub fn prepare(torch_version: &str, schema_hash: u64) {
    let mut book = CONNECTING.lock();
    book.torch_version = torch_version.to_owned();
    book.schema_hash = schema_hash;
    fork::watch();
}

/// The session in use, if there is one; none in a forked child.
#[must_use]
pub fn get() -> Option<&'static Session> {
    if fork::is_forked() {
        return None;
    }
    let pointer = CURRENT.load(Ordering::Acquire);
    // SAFETY: null, or a session that was leaked by `connect`.
    unsafe { pointer.as_ref() }
}

/// The session in use; connects as the environment says if there is none yet.
///
/// # Errors
/// Not connected and nowhere to connect to, or in a forked child.
pub fn session() -> Result<&'static Session, Error> {
    fork::check()?;
    if let Some(session) = get() {
        return Ok(session);
    }
    let target = Target::of_environment()?;
    match target.addresses.is_empty() {
        false => open(&target, Duration::from_secs(5), Asked::ByNobody),
        true => Err(Error::Genie(
            Exception::NotConnected,
            "not connected to a node: call genie.connect(\"tcp://HOST:7700\") first, or set \
             GENIE_ADDRESS or GENIE_CONFIG"
                .to_owned(),
        )),
    }
}

/// How long a node that did not answer is left alone by those who only ask whether there is one.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// The session in use; else one with the nodes that the environment names. `None` where it names none, or
/// they can't be had: then that is said, and not tried again for a while.
pub fn get_or_connect() -> Option<&'static Session> {
    static FAILED: Mutex<Option<Instant>> = Mutex::new(None);
    if let Some(session) = get() {
        return Some(session);
    }
    if fork::is_forked() || Target::of_environment().is_ok_and(|target| target.addresses.is_empty())
    {
        return None;
    }
    // Not held while connecting or warning: both may need the GIL, which who waits here may have.
    if FAILED.lock().is_some_and(|at| at.elapsed() < LEFT_ALONE) {
        return None;
    }
    match session() {
        Ok(session) => Some(session),
        Err(error) => {
            *FAILED.lock() = Some(Instant::now());
            Python.warn(&format!(
                "the devices that the environment names can't be had, so there are none: {error}"
            ));
            None
        }
    }
}

/// Whether a program called for a session, or did what needs one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    ByProgram,
    ByNobody,
}

/// Fails where the device of this number was lost with its session, and says why.
///
/// # Errors
/// Why it was.
pub fn check_number(number: u16) -> Result<(), Error> {
    let book = CONNECTING.lock();
    let all = book.sessions.iter();
    let found = all.filter_map(|session| session.numbered(number).map(|at| (session, at)));
    found
        .take(1)
        .try_for_each(|(session, at)| session.check_at(at))
}

/// Opens a session and makes it the one in use.
///
/// # Errors
/// Nobody there, refused, or one is open already.
pub fn connect(target: &Target, timeout: Duration) -> Result<&'static Session, Error> {
    open(target, timeout, Asked::ByProgram)
}

fn open(target: &Target, timeout: Duration, asked: Asked) -> Result<&'static Session, Error> {
    fork::check()?;
    let bad = |error: genie_client::address::AddressError| Error::Value(error.to_string());
    let addresses: Result<Vec<_>, _> = target
        .addresses
        .iter()
        .map(|address| Address::parse(address))
        .collect();
    let addresses = addresses.map_err(bad)?;
    if let Some(twice) = repeated(&addresses) {
        return Err(Error::Value(format!(
            "{twice} is named twice: name each node once, its devices come in their order"
        )));
    }
    let tls = Tls::from_files(
        target.ca.as_deref(),
        target.cert.as_deref(),
        target.key.as_deref(),
    )
    .map_err(bad)?;
    let policy = target.policy.as_deref().map(genie_planner::policy);
    let policy = policy
        .transpose()
        .map_err(|error| Error::Value(error.to_string()))?;
    fork::note_use();
    let mut book = CONNECTING.lock();
    if let Some(session) = get() {
        let is_well = session.check().is_ok();
        // Somebody else was faster, or it was opened because somebody asked what devices there are.
        if is_well && asked == Asked::ByNobody {
            return Ok(session);
        }
        if is_well && book.unasked.as_ref() == Some(target) {
            book.unasked = None;
            return Ok(session);
        }
        let is_unused = book.unasked.is_some() && session.log_counters().records == 0;
        if is_well && !is_unused {
            return Err(Error::Runtime(
                "a session is open already: call genie.disconnect() first (its tensors are gone \
                 then)"
                    .to_owned(),
            ));
        }
        // What is left of one that has lost a node, or one that nobody called for and nobody used.
        session.close();
    }
    let request = OpenSessionRequest {
        protocol_version: PROTOCOL_VERSION,
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        torch_version: book.torch_version.clone(),
        schema_hash: book.schema_hash,
        pid: std::process::id(),
        hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        ..OpenSessionRequest::default()
    };
    let opened = opening::open(&addresses, tls.as_ref(), &request, timeout)
        .map_err(|error| open_error(&error))?;
    let devices = u16::try_from(opened.len()).ok();
    let next = devices.and_then(|devices| book.numbered.checked_add(devices));
    let next = next.ok_or_else(|| Error::Runtime("too many sessions in one process".to_owned()))?;
    let session = Session::start_placed(book.numbered + 1, opened, Box::new(Python), policy)
        .map_err(|error| Error::Genie(Exception::Connect, format!("no session: {error}")))?;
    book.numbered = next;
    book.unasked = (asked == Asked::ByNobody).then(|| target.clone());
    let session: &'static Session = Box::leak(Box::new(session));
    book.sessions.push(session);
    for lane in session.lanes() {
        tracing::info!(
            target: "session", lane = lane.number - session.first().number, node = %lane.node,
            device = %lane.device().name, session = lane.opened.session_id,
            "a device of the session"
        );
        let (transport, why) = lane.link.transport();
        tracing::info!(target: "link", node = %lane.node, transport, why, "connected");
    }
    // SAFETY: it takes any number.
    unsafe { genie_backend_session_changed(session.first().number) };
    CURRENT.store(std::ptr::from_ref(session).cast_mut(), Ordering::Release);
    Ok(session)
}

fn repeated(addresses: &[Address]) -> Option<&Address> {
    let before = |at: usize| addresses[..at].contains(&addresses[at]);
    (0..addresses.len())
        .find(|&at| before(at))
        .map(|at| &addresses[at])
}

fn open_error(error: &OpenError) -> Error {
    let address = &error.address;
    match &error.why {
        Why::Control(error) => control_error(address, error),
        Why::Link(error) => Error::Genie(
            Exception::Connect,
            format!("the node at {address} was lost: {error}"),
        ),
        Why::Refused(message) => Error::Genie(
            Exception::Connect,
            format!("the node at {address} refused: {message}"),
        ),
        why @ Why::TooMany => Error::Genie(
            Exception::Connect,
            format!("with the node at {address} {why}"),
        ),
    }
}

fn control_error(address: &Address, error: &ControlError) -> Error {
    match error {
        ControlError::Unreachable(why) => {
            let hint = match address {
                Address::Node { .. } => format!(
                    "Is genie-dataplane running there? `genie-dataplane status {}` tells",
                    address.to_string().trim_start_matches("tcp://")
                ),
                Address::Gateway { .. } => {
                    "Is `genie-dataplane --gateway` running on this host, and does it reach its \
                     node? Its log tells"
                        .to_owned()
                }
            };
            Error::Genie(
                Exception::Connect,
                format!("no node answers at {address}: {why}. {hint}"),
            )
        }
        ControlError::Untrusted(why) => Error::Genie(
            Exception::Connect,
            format!(
                "no session with the node at {address}: {why}. What is shown and trusted here: ca, cert and \
                 key of genie.connect, or GENIE_CA, GENIE_CERT and GENIE_KEY"
            ),
        ),
        ControlError::Refused { code, message } => {
            let which = match code {
                Some(
                    ErrorCode::VersionMismatch
                    | ErrorCode::TorchMismatch
                    | ErrorCode::SchemaMismatch,
                ) => Exception::VersionMismatch,
                _ => Exception::Connect,
            };
            Error::Genie(which, format!("the node at {address} refused: {message}"))
        }
    }
}

/// Ends the session in use; nothing if there is none.
pub fn disconnect() {
    if fork::is_forked() {
        return;
    }
    let pointer = CURRENT.swap(std::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: null, or a session that was leaked by `connect`.
    if let Some(session) = unsafe { pointer.as_ref() } {
        session.close();
        let next = CONNECTING.lock().numbered.saturating_add(1);
        // SAFETY: it takes any number.
        unsafe { genie_backend_session_changed(next) };
    }
}

/// Counts an operator that ran on the client's CPU.
pub fn count_fallback() {
    FALLBACKS.fetch_add(1, Ordering::Relaxed);
}

/// Operators that ran on the client's CPU.
#[must_use]
pub fn fallbacks() -> u64 {
    FALLBACKS.load(Ordering::Relaxed)
}
