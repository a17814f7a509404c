//! What is behind the control plane's port. Tensors are not: they go to the nodes.

use std::sync::Arc;

use axum::Router;
use genie_controlplane::identity::Identity;
use genie_controlplane::service::ControlPlane;
use genie_server::server::{Data, Handler, Rejected, Stream, refuse};
use genie_session::fault::{Code, Fault};
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::fleet::Fleet;
use crate::remote::State;

/// What is said to who brings tensors.
const NO_DATA: &str =
    "this is a control plane: tensors go to its nodes, whose addresses its answers have";

/// A control plane behind its port.
#[derive(Clone)]
pub struct PlaneHandler {
    control: ControlPlane,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
}

/// What `/metrics` tells. What is known elsewhere is read when it is asked for.
struct Metrics {
    registry: Registry,
    connections: Counter,
    connections_rejected: Counter,
    sessions: Gauge,
    nodes: Family<[(&'static str, String); 1], Gauge>,
    hits: Counter,
    misses: Counter,
    read: Mutex<()>,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("genie_controlplane");
        let (connections, connections_rejected) = (Counter::default(), Counter::default());
        let (sessions, nodes) = (Gauge::default(), Family::default());
        let (hits, misses) = (Counter::default(), Counter::default());
        let mut add = |name: &str, help: &str, metric: &Counter| {
            registry.register(name, help, metric.clone());
        };
        add("connections", "Connections that came", &connections);
        add(
            "connections_rejected",
            "Those that came to nothing",
            &connections_rejected,
        );
        add(
            "plan_cache_hits",
            "Segments whose structure was known",
            &hits,
        );
        add(
            "plan_cache_misses",
            "Segments whose structure was new",
            &misses,
        );
        registry.register("sessions", "Sessions, one a device", sessions.clone());
        registry.register("node_reachable", "1 where the node answers", nodes.clone());
        Self {
            registry,
            connections,
            connections_rejected,
            sessions,
            nodes,
            hits,
            misses,
            read: Mutex::new(()),
        }
    }
}

/// Lets a counter catch up with what is counted elsewhere.
fn catch_up(counter: &Counter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

impl PlaneHandler {
    /// Of `control` in front of `fleet`.
    #[must_use]
    pub fn new(control: ControlPlane, fleet: Arc<Fleet>) -> Self {
        Self {
            control,
            fleet,
            metrics: Arc::new(Metrics::new()),
        }
    }
}

impl Handler for PlaneHandler {
    fn services(&self, router: Router) -> Router {
        self.control.routes(router)
    }

    fn metrics(&self) -> String {
        let metrics = &self.metrics;
        let _one = metrics.read.lock();
        let sessions = self.control.session_count();
        metrics
            .sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        let plans = self.control.plan_counts();
        catch_up(&metrics.hits, plans.hits);
        catch_up(&metrics.misses, plans.misses);
        for node in self.fleet.nodes() {
            let is_there = matches!(node.state(), State::Reachable { .. });
            let gauge = metrics
                .nodes
                .get_or_create_owned(&[("node", node.address().to_owned())]);
            gauge.set(is_there.into());
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &metrics.registry);
        text
    }

    fn not_ready(&self) -> Option<String> {
        self.fleet.not_ready()
    }

    fn connected(&self) {
        self.metrics.connections.inc();
    }

    fn rejected(&self) {
        self.metrics.connections_rejected.inc();
    }

    async fn data(
        &self,
        _data: Data,
        _identity: Identity,
        mut stream: Stream,
    ) -> Result<(), Rejected> {
        let fault = Fault::new(Code::Protocol, 0, NO_DATA);
        Err(refuse(fault, &mut stream).await)
    }
}
