//! A session's data path: what connects a session, its two threads and its executor. Only this
//! knows them all.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use genie_channel::AppHalf;
use genie_session::frame::{HELLO_BYTES, Header, Kind, decode_hello};
use rustls::ServerConnection;

use super::end::End;
use super::inbox::Inbox;
use super::link::{Carrier, Link};
use super::outgoing::Outgoing;
use super::reader::ReadError;
use super::running::Running;
use super::session::{Claim, Session, spawn};
use super::stream::{Cut, ReadHalf, WriteHalf};
use super::{channel, reader, socket, writer};

/// Starts the data path on a claimed session's TCP connection. Blocking sockets from here on.
///
/// # Errors
/// What the system says of the socket or of threads.
pub fn connect(
    session: &Arc<Session>,
    socket: TcpStream,
    tls: Option<ServerConnection>,
) -> std::io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    // Silence for a lease ends a session, without a timer.
    socket.set_read_timeout(Some(session.host().lease))?;
    socket.set_write_timeout(Some(session.host().lease))?;
    let (read, write, socket) = socket::split(socket, tls, session.host().lease);
    let read = ReadHalf::Socket(read);
    let (write, cut) = (WriteHalf::Socket(write), Cut::Socket(socket));
    let work = welcome(session, read, write, cut, None)?;
    spawn(format!("read-{:x}", session.id()), work)
}

/// Waits for the client on a channel to the poll loop. The session has its data path when the
/// client shows its token there; another connection may be faster, and then the channel ends.
///
/// # Errors
/// What the system says of threads.
pub fn expect(session: &Arc<Session>, channel: AppHalf, carrier: Carrier) -> std::io::Result<()> {
    let this = Arc::downgrade(session);
    let on_sent = Box::new(move |place| {
        let session = this.upgrade();
        let running = session.as_ref().and_then(|session| session.running());
        // An executor that is gone needs no memory.
        let _ = running.map(|running| running.left(place));
    });
    let (read, write, cut) = channel::split(channel, session.host().lease, on_sent);
    let mut read = ReadHalf::Channel(Box::new(read));
    let session = Arc::clone(session);
    spawn(format!("read-{:x}", session.id()), move || {
        if !is_shown_token(&session, &mut read) {
            return;
        }
        match session.claim() {
            Claim::Mine => {}
            Claim::Taken => return,
            Claim::Full => return session.end(End::full()),
        }
        let write = WriteHalf::Channel(write);
        match welcome(&session, read, write, Cut::Channel(cut), Some(carrier)) {
            Ok(work) => work(),
            Err(error) => session.end(End::broken(&error)),
        }
    })
}

/// Reads the opening of a data connection; whether it is this session's.
fn is_shown_token(session: &Session, read: &mut ReadHalf) -> bool {
    let mut hello = [0; HELLO_BYTES];
    let mut have = 0;
    while have < hello.len() && !session.is_over() && !session.is_connected() {
        match read.read(&mut hello[have..]) {
            Ok(count) if count > 0 => have += count,
            _ => return false,
        }
    }
    have == hello.len()
        && decode_hello(&hello).is_ok_and(|token| session.spec().token.matches(&token))
}

/// Lets the client in; gives what its reading thread is to do.
fn welcome(
    session: &Arc<Session>,
    read: ReadHalf,
    write: WriteHalf,
    cut: Cut,
    carrier: Option<Carrier>,
) -> std::io::Result<impl FnOnce() + Send + 'static> {
    let outgoing = Outgoing::new(write);
    session.heard();
    outgoing.send_urgent(&Header::new(Kind::Welcome, 0, 0), &[])?;
    session.set_link(Link::new(outgoing, cut, carrier))?;
    let session = Arc::clone(session);
    Ok(move || {
        if let Some(link) = session.link() {
            reader::run(&session, link, read, &|| start_executor(&session, link));
        }
        session.reader_is_done();
    })
}

/// Starts the session's executor, with its first frame that needs one.
///
/// # Errors
/// The node has no memory for it; it does not start.
fn start_executor<'a>(session: &Arc<Session>, link: &'a Link) -> Result<&'a Running, ReadError> {
    if !session.host().budget.enter(session.id()) {
        return Err(ReadError::NoMemory);
    }
    start_charged(session, link).map_err(|reason| {
        if session.is_over() {
            // It may have ended before it had a share.
            session.host().budget.leave(session.id());
        }
        ReadError::Executor(reason)
    })
}

fn start_charged<'a>(session: &Arc<Session>, link: &'a Link) -> Result<&'a Running, String> {
    let started = Instant::now();
    let spec = session.spec();
    let executor = session.host().launch(
        session.id(),
        spec.identity.tenant.as_str(),
        spec.device,
        spec.memory_budget_bytes,
    )?;
    let (pid, from) = (executor.pid, executor.from);
    if session.host().is_charged(spec.device) {
        let word = Arc::clone(&executor.allowance);
        session.host().budget.tell(session.id(), word);
    }
    let running = Running {
        pid,
        closers: [executor.to.closer(), from.closer()],
        inbox: Inbox::new(executor.to),
        memory: executor.memory,
        process: executor.process,
        word: executor.allowance,
    };
    let running = link.running.get_or_init(|| running);
    if let Some(Carrier { poll, connection }) = &link.carrier {
        let (source, sink) = (running.memory.source(), running.memory.sink());
        poll.share(*connection, Arc::clone(source), Arc::clone(sink))
            .map_err(|error| format!("its memory can't be reached: {error}"))?;
    }
    if session.is_over() {
        running.stop();
        return Err("the session ended".to_owned());
    }
    let this = Arc::clone(session);
    let write = move || {
        if let Some(link) = this.link()
            && let Some(running) = link.running.get()
        {
            writer::run(&this, link, running, from);
        }
    };
    spawn(format!("write-{:x}", session.id()), write)
        .map_err(|error| format!("this node can't start a thread: {error}"))?;
    session.executor_started();
    tracing::debug!(
        session = session.id(),
        pid,
        "the executor of session {} started in {:?}",
        session.id(),
        started.elapsed()
    );
    Ok(running)
}
