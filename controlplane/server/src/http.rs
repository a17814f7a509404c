//! HTTP on the one port: gRPC, `/metrics` and `/healthz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use genie_controlplane::identity::Identity;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

use crate::door::Guest;
use crate::handler::Handler;
use crate::rejected::Rejected;

/// gRPC calls of one connection at a time.
const STREAMS_MAX: u32 = 32;
/// Bytes of a request's headers, and how many there may be.
const HEADER_BYTES_MAX: u32 = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Streams that a peer opened and reset before they were looked at.
const RESETS_MAX: usize = 32;
/// How often a silent HTTP/2 peer is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a request may take, its body included.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long a connection without a session may ask for nothing.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often that is looked at.
const TICK: Duration = Duration::from_secs(1);
/// The call that makes a session.
const OPEN_SESSION: &str = "/genie.control.v1.Control/OpenSession";

/// What `/metrics` is.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is served, and where.
pub fn router<H: Handler>(handler: &H) -> Router {
    let router = Router::new()
        .route("/metrics", get(metrics::<H>))
        .route("/healthz", get(healthz::<H>))
        .with_state(handler.clone());
    handler.services(router)
}

async fn metrics<H: Handler>(State(handler): State<H>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], handler.metrics())
}

async fn healthz<H: Handler>(State(handler): State<H>) -> impl IntoResponse {
    match handler.not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Serves a connection of `identity`. Its guest has to make its first request in time.
pub async fn serve<S>(
    router: Router,
    stream: S,
    identity: Identity,
    guest: Arc<Guest>,
) -> Result<(), Rejected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(Mutex::new(None));
    let handshake = guest.deadline.saturating_duration_since(Instant::now());
    let service = {
        let (asked, refused) = (Arc::clone(&asked), Arc::clone(&refused));
        let guest = Arc::clone(&guest);
        hyper::service::service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let answer = answer(
                router.clone(),
                request,
                identity.clone(),
                Arc::clone(&guest),
            );
            let refused = Arc::clone(&refused);
            async move {
                answer.await.map_err(|rejected| {
                    let text = rejected.to_string();
                    *refused.lock() = Some(rejected);
                    std::io::Error::other(text)
                })
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .header_read_timeout(handshake.max(TICK));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(KEEP_ALIVE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut closing = false;
    let ended = loop {
        tokio::select! {
            ended = &mut connection => break ended,
            () = tokio::time::sleep(TICK) => {}
        }
        if !asked.load(Ordering::Relaxed) {
            if Instant::now() >= guest.deadline {
                return Err(Rejected::Slow);
            }
        } else if guest.idle().is_some_and(|idle| idle >= IDLE_MAX) {
            if closing {
                return Ok(());
            }
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
    };
    let refused = refused.lock().take();
    if let Some(rejected) = refused {
        return Err(rejected);
    }
    match ended {
        Err(error) if !asked.load(Ordering::Relaxed) => Err(Rejected::Http(error.to_string())),
        // A client may leave as it likes.
        _ => Ok(()),
    }
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    identity: Identity,
    guest: Arc<Guest>,
) -> Result<Response, Rejected> {
    guest.admit()?;
    let mut asking = guest.request();
    let opens = request.uri().path() == OPEN_SESSION;
    request.extensions_mut().insert(identity);
    request.extensions_mut().insert(guest.peer());
    let answer = router.oneshot(request.map(Body::new));
    let Ok(answer) = tokio::time::timeout(REQUEST_MAX, answer).await else {
        return Err(Rejected::Slow);
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    // What gRPC refuses it says in the header.
    if opens
        && answer
            .headers()
            .get("grpc-status")
            .is_none_or(|status| status == "0")
    {
        asking.keeps();
    }
    Ok(answer)
}
