//! `status`: asks a daemon what it has and does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use genie_control_api::v1;
use genie_control_api::v1::control_client::ControlClient;
use tonic::transport::Channel;

use crate::{channel, tls};

use crate::values::Size;

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Exit status of a node that is not ready.
const NOT_READY: u8 = 1;
/// Exit status when there is no answer.
const UNREACHABLE: u8 = 2;

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The node, or the control plane
    #[arg(value_name = "HOST:PORT")]
    pub address: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The authority that signed the node's certificate: speak TLS
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// This client's certificate
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires_all = ["ca", "cert"])]
    pub key: Option<PathBuf>,
}

/// Prints a daemon's status; its exit status says whether it is ready.
pub async fn run(args: &StatusArgs) -> ExitCode {
    let asked = tokio::time::timeout(TIMEOUT, ask(args)).await;
    let status = match asked {
        Ok(Ok(status)) => status,
        Ok(Err(reason)) => return unreachable(args, &reason),
        Err(_) => return unreachable(args, "it did not answer within 5 s"),
    };
    let text = if args.json {
        serde_json::to_string_pretty(&status).unwrap_or_default()
    } else {
        render(&status)
    };
    // Whoever reads it may have read enough.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    if status.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_READY)
    }
}

fn unreachable(args: &StatusArgs, reason: &str) -> ExitCode {
    eprintln!("genie: no answer from {}: {reason}", args.address);
    if args.ca.is_none() {
        eprintln!("If the node speaks TLS, say --ca, --cert and --key.");
    } else if args.cert.is_none() {
        eprintln!("It lets in only who has a certificate: say --cert and --key.");
    }
    ExitCode::from(UNREACHABLE)
}

async fn ask(args: &StatusArgs) -> Result<v1::StatusReply, String> {
    let channel = connect(args).await?;
    let reply = ControlClient::new(channel)
        .status(v1::StatusRequest {})
        .await;
    reply
        .map(tonic::Response::into_inner)
        .map_err(|status| channel::why(&status))
}

async fn connect(args: &StatusArgs) -> Result<Channel, String> {
    let wrong = |error: &dyn std::fmt::Display| error.to_string();
    let identity = args.cert.as_deref().zip(args.key.as_deref());
    let tls = match &args.ca {
        None => None,
        Some(ca) => Some(
            tls::client_config(ca, identity, tls::alpn::HTTP2).map_err(|error| wrong(&error))?,
        ),
    };
    channel::to(&args.address, tls)
}

fn render(status: &v1::StatusReply) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<12}{value}");
    };
    let state = match (status.ready, status.draining) {
        (true, _) => "ready".to_owned(),
        (false, true) => "draining".to_owned(),
        (false, false) => format!("not ready: {}", status.not_ready_reason),
    };
    let is_node = status.nodes.is_empty();
    line(
        if is_node { "node" } else { "plane" },
        format!(
            "genie {}, protocol {}",
            status.node_version, status.protocol_version
        ),
    );
    line(
        "state",
        format!("{state}, up {}", seconds(status.uptime_ms)),
    );
    if is_node {
        line(
            "transport",
            format!("{} ({})", status.transport, status.transport_reason),
        );
    }
    line("TLS", if status.tls { "on" } else { "off" }.to_owned());
    if is_node {
        let libtorch = status.libtorch.clone().unwrap_or_default();
        line(
            "libtorch",
            if libtorch.version.is_empty() {
                format!("none: {}", libtorch.missing_reason)
            } else {
                format!("{} in {}", libtorch.version, libtorch.directory)
            },
        );
        for library in &libtorch.operator_libraries {
            let operators = library.schemas.len();
            line(
                "library",
                format!("{}, {operators} operators", library.name),
            );
        }
    }
    for node in &status.nodes {
        let state = match node.reachable {
            true => {
                format!(
                    "genie {}, {} devices, {} sessions from here",
                    node.node_version,
                    node.devices.len(),
                    node.sessions
                ) + &match node.not_ready_reason.is_empty() {
                    true => String::new(),
                    false => format!("; takes no new ones: {}", node.not_ready_reason),
                }
            }
            false => format!("not there: {}", node.reason),
        };
        line("node", format!("{}: {state}", node.address));
    }
    for (index, device) in status.devices.iter().enumerate() {
        let name = format!("{}:{}", device.kind, device.index);
        line(
            "device",
            format!(
                "{index} = {name}, {}, {}{}",
                device.name,
                bytes(device.memory_bytes),
                at(&device.node)
            ),
        );
    }
    for (index, part) in status.sandbox.iter().enumerate() {
        let name = if index == 0 { "sandbox" } else { "" };
        let in_force = if part.in_force { "yes" } else { "no" };
        line(name, format!("{} {in_force}: {}", part.name, part.note));
    }
    line(
        "sessions",
        format!("{} of {}", status.sessions.len(), status.sessions_max),
    );
    for session in &status.sessions {
        line(
            "",
            format!(
                "{} {}/{} ({}), {} old, {} in {} tensors, {} records, {} plans, {} hits{}",
                session.id,
                session.tenant,
                session.principal,
                session.client,
                seconds(session.age_ms),
                bytes(session.memory_bytes),
                session.tensors,
                session.records,
                session.plans,
                session.plan_hits,
                at(&session.node)
            ),
        );
    }
    if is_node {
        let counters = status.counters.unwrap_or_default();
        line(
            "so far",
            format!(
                "{} sessions ({} refused, {} lost), {} records, {} in, {} out, {} executors ({} died), \
             {} faults, {} connections rejected",
                counters.sessions_opened,
                counters.sessions_refused,
                counters.sessions_lost,
                counters.records,
                bytes(counters.bytes_received),
                bytes(counters.bytes_sent),
                counters.executors_started,
                counters.executors_died,
                counters.faults,
                counters.connections_rejected
            ),
        );
    }
    out
}

/// Where something is, if that needs to be said.
fn at(node: &str) -> String {
    match node.is_empty() {
        true => String::new(),
        false => format!(", at {node}"),
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

fn bytes(bytes: u64) -> String {
    // Three digits at least are kept: a size is exact, or rounded to a unit far below it.
    let unit = [30, 20, 10]
        .into_iter()
        .find(|shift| bytes >> shift >= 100)
        .unwrap_or(0);
    if bytes == 0 {
        "0".to_owned()
    } else {
        Size(bytes >> unit << unit).to_string()
    }
}
