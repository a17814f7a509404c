//! Opens a session over nodes: a log for each device of each of them, or none at all.

use std::io;
use std::time::{Duration, Instant};

use genie_control_api::v1::{Device, OpenSessionReply, OpenSessionRequest};
use genie_session::limits::LOGS_MAX;

use crate::address::{Address, AddressError, Tls};
use crate::control::{Control, ControlError, goodbye};
use crate::engine::Opened;
use crate::handshake::handshake;
use crate::link::Link;

/// How long a node has to hear that its session is not wanted after all.
const CLOSING: Duration = Duration::from_millis(500);

/// Why there is no session, and which node is to blame.
#[derive(Debug)]
pub struct OpenError {
    /// Where it was looked for.
    pub address: Address,
    /// What it did.
    pub why: Why,
}

/// Why a node is not there.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The control channel.
    #[error(transparent)]
    Control(ControlError),
    /// The data path.
    #[error(transparent)]
    Link(io::Error),
    /// The node turned the data connection away.
    #[error("{0}")]
    Refused(String),
    /// Too many devices for one session.
    #[error("there are more than {LOGS_MAX} devices")]
    TooMany,
}

/// Opens the devices of the nodes at `addresses`, in their order. A node that can't be had costs
/// those that can: nothing stays half open.
///
/// # Errors
/// Of the first node that can't be had.
pub fn open(
    addresses: &[Address],
    tls: Option<&Tls>,
    request: &OpenSessionRequest,
    timeout: Duration,
) -> Result<Vec<Opened>, OpenError> {
    let nodes: Vec<_> = std::thread::scope(|scope| {
        let opening = |address| scope.spawn(move || node(address, tls, request, timeout));
        let opening: Vec<_> = addresses.iter().map(opening).collect();
        let joined = opening.into_iter().zip(addresses);
        joined
            .map(|(node, address)| node.join().unwrap_or_else(|_| died(address)))
            .collect()
    });
    let (mut all, mut failed) = (Vec::new(), None);
    for (node, address) in nodes.into_iter().zip(addresses) {
        match node {
            Ok(opened) => all.extend(opened),
            Err(error) => failed = failed.or(Some(error)),
        }
        if all.len() > LOGS_MAX && failed.is_none() {
            failed = Some(OpenError {
                address: address.clone(),
                why: Why::TooMany,
            });
        }
    }
    match failed {
        None => Ok(all),
        Some(error) => {
            close(all);
            Err(error)
        }
    }
}

fn died(address: &Address) -> Result<Vec<Opened>, OpenError> {
    Err(OpenError {
        address: address.clone(),
        why: Why::Link(io::Error::other("the thread that connects died")),
    })
}

/// All devices of one node, or of all that are behind a control plane.
fn node(
    address: &Address,
    tls: Option<&Tls>,
    request: &OpenSessionRequest,
    timeout: Duration,
) -> Result<Vec<Opened>, OpenError> {
    let deadline = Instant::now() + timeout;
    let mut all: Vec<Opened> = Vec::new();
    // The first answer tells which others there are.
    let mut wanted = vec![Device::default()];
    while let Some(next) = wanted.get(all.len()) {
        let request = OpenSessionRequest {
            device: next.at,
            node: next.node.clone(),
            transport_wanted: address.is_gateway(),
            ..request.clone()
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match device(address, tls, request, left.max(Duration::from_millis(1))) {
            Ok(opened) => {
                if all.is_empty() {
                    wanted = opened
                        .reply
                        .devices
                        .iter()
                        .take(LOGS_MAX + 1)
                        .cloned()
                        .collect();
                }
                all.push(opened);
            }
            Err(why) => {
                close(all);
                let address = address.clone();
                return Err(OpenError { address, why });
            }
        }
    }
    Ok(all)
}

/// One device of a node.
///
/// # Errors
/// What the node did.
pub fn device(
    address: &Address,
    tls: Option<&Tls>,
    request: OpenSessionRequest,
    timeout: Duration,
) -> Result<Opened, Why> {
    let at = request.device;
    let (control, reply) =
        Control::open(address.clone(), tls.cloned(), request, timeout).map_err(Why::Control)?;
    let its = |device: &Device| device.node == reply.node && device.at == at;
    let index = reply.devices.iter().position(its).unwrap_or(at as usize);
    let home = match home(address, &reply) {
        Ok(home) => home,
        Err(error) => {
            control.close(goodbye(&reply), CLOSING);
            return Err(Why::Refused(error.to_string()));
        }
    };
    match connect(&home, tls, &reply, timeout) {
        Ok(link) => Ok(Opened {
            node: home.to_string(),
            device: index,
            reply,
            link,
            control,
        }),
        Err(why) => {
            control.close(goodbye(&reply), CLOSING);
            Err(why)
        }
    }
}

/// Where the session's node is, if `asked` was the control plane in front of it.
fn home(asked: &Address, reply: &OpenSessionReply) -> Result<Address, AddressError> {
    match reply.node.is_empty() {
        true => Ok(asked.clone()),
        false => Address::parse(&reply.node),
    }
}

fn connect(
    address: &Address,
    tls: Option<&Tls>,
    reply: &OpenSessionReply,
    timeout: Duration,
) -> Result<Link, Why> {
    let link = Link::open(address, tls, reply.transport.as_ref(), timeout).map_err(Why::Link)?;
    match handshake(&link, &reply.data_token, timeout).map_err(Why::Link)? {
        Ok(()) => Ok(link),
        Err(fault) => Err(Why::Refused(fault.message)),
    }
}

/// Says goodbye to all at once: none of them waits for another that is silent.
fn close(all: Vec<Opened>) {
    std::thread::scope(|scope| {
        for opened in all {
            scope.spawn(move || {
                opened.control.close(goodbye(&opened.reply), CLOSING);
                opened.link.shutdown();
            });
        }
    });
}
