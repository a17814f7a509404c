//! What it takes to reach the node: from asking for a TCP connection to having it.

use std::future::poll_fn;
use std::net::{SocketAddrV4, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use genie_poll::PollLoop;
use tokio::io::AsyncWrite as _;

use crate::config::Address;

/// A node that takes longer does not answer.
const LIMIT: Duration = Duration::from_secs(1);

/// By the link's own host. `None`: it does not answer.
pub fn link(poll: &PollLoop, node: SocketAddrV4) -> Option<Duration> {
    let started = Instant::now();
    let mut stream = poll.connect(node).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .ok()?;
    let ready = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &[]));
    let ready = runtime.block_on(async { tokio::time::timeout(LIMIT, ready).await });
    ready.ok()?.ok()?;
    let took = started.elapsed();
    let mut cx = Context::from_waker(Waker::noop());
    let _: Poll<_> = Pin::new(&mut stream).poll_shutdown(&mut cx);
    Some(took)
}

/// By the kernel's. `None`: it does not answer.
pub fn tcp(node: &Address) -> Option<Duration> {
    let address = node.resolve().ok()?.into_iter().next()?;
    let started = Instant::now();
    TcpStream::connect_timeout(&address, LIMIT).ok()?;
    Some(started.elapsed())
}
