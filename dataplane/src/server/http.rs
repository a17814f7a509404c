//! HTTP on the one port: gRPC, `/metrics` and `/healthz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use genie_control_api::v1::control_server::ControlServer;
use genie_controlplane::service::ControlPlane;
use genie_controlplane::sessions::Principal;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

use super::Rejected;
use crate::node::Shared;

/// gRPC calls of one connection at a time.
const STREAMS_MAX: u32 = 64;
/// How often a silent HTTP/2 peer is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct Context {
    node: Arc<Shared>,
    control: ControlPlane,
}

/// What is served, and where.
pub fn router(node: Arc<Shared>, control: ControlPlane) -> Router {
    let grpc = ControlServer::new(control.clone());
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(Context { node, control })
        .route_service("/genie.control.v1.Control/{*method}", grpc)
}

async fn metrics(State(context): State<Context>) -> impl IntoResponse {
    let mut gauges = context.node.gauges();
    let plans = context.control.plan_counts();
    (gauges.plan_cache_hits, gauges.plan_cache_misses) = (plans.hits, plans.misses);
    let text = context.node.metrics.render(&gauges);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn healthz(State(context): State<Context>) -> impl IntoResponse {
    match context.node.not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Serves a connection of `principal`. It has `handshake` to make its first request.
pub async fn serve<S>(
    router: Router,
    stream: S,
    principal: Principal,
    handshake: Duration,
) -> Result<(), Rejected>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        seen.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(principal.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = tokio::time::sleep(handshake) => {
            if !asked.load(Ordering::Relaxed) {
                return Err(Rejected::Slow);
            }
            connection.await
        }
    };
    match ended {
        Err(error) if !asked.load(Ordering::Relaxed) => Err(Rejected::Http(error.to_string())),
        // A client may leave as it likes.
        _ => Ok(()),
    }
}
