//! How two ends come by a connection over their ports.
//!
//! The end that serves offers one over the control socket. The other end looks for it on the link
//! (ARP), asks it to open its half, and a hello goes there and back: then frames pass, in both
//! directions, as the offer says. The secret has crossed the control socket as it is: sealing is
//! measured here, it keeps nothing from who hears that socket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use genie_channel::Offer;
use genie_poll::{ChannelOpenError, PeerPlace};
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role};
use smoltcp::wire::Ipv4Cidr;

use super::{Dpdk, DpdkPort, HELLO};
use crate::control::{Answer, Ask, Control, PATIENCE};
use crate::interrupt;
use crate::measure::answer;
use crate::options::Seal;
use crate::path::{Path as _, Wait};

/// How long the link may take to come up, and the other end to be found on it: a NIC and its switch
/// take seconds.
const FIND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a hello may take there and back. The connection is given up before.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Each connection has a name of its own.
const EPOCH: u32 = 1;

impl<'a> Dpdk<'a> {
    /// A connection for the other end to take.
    pub fn offer(port: &'a mut DpdkPort, seal: Option<Seal>) -> Result<(Self, Offer)> {
        let (mut name, mut secret) = ([0; 8], [0; 32]);
        getrandom::fill(&mut name)
            .and_then(|()| getrandom::fill(&mut secret))
            .map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let frame_max = u16::try_from(port.engine().frame_bytes_max()).unwrap_or(u16::MAX);
        let offer = Offer {
            connection: u64::from_le_bytes(name),
            epoch: EPOCH,
            secret,
            sealed: seal == Some(Seal::On),
            peer: port.config().address,
            mtu_max: frame_max,
        };
        let offer = offer.checked()?;
        let config = config(&offer, Role::Responder);
        Ok((Self::new(port, config, PeerPlace::Learned), offer))
    }

    /// Waits for who took the offer, until frames pass. If the other end asks for something else
    /// instead, that is it.
    pub fn meet(&mut self, control: &mut Control) -> Result<Option<Ask>> {
        let began = Instant::now();
        loop {
            match control.poll()? {
                Some(Ask::Meet) => {
                    self.open()?;
                    control.send(&Answer::Ready)?;
                }
                Some(other) => return Ok(Some(other)),
                None if began.elapsed() > PATIENCE => {
                    bail!("nobody came on the link for {PATIENCE:?}")
                }
                None => {}
            }
            self.wait(Wait::Control)?;
            // A connection that ends without is no end of it: there are other paths.
            if self.heard_hello().is_ok_and(|heard| heard) && self.say_hello().is_ok() {
                return Ok(None);
            }
        }
    }

    /// Takes an offer: finds the other end, and sees that frames pass.
    pub fn take(port: &'a mut DpdkPort, offer: &Offer, control: &mut Control) -> Result<Self> {
        if *offer.peer.ip() == *port.config().address.ip() {
            bail!(
                "both ends have the address {} on the link: --dpdk-address gives this one another",
                offer.peer.ip()
            );
        }
        let network = Ipv4Cidr::new(*port.config().address.ip(), port.config().prefix);
        if !network.contains_addr(offer.peer.ip()) && port.config().router.is_none() {
            bail!(
                "the server is at {} on the link, which is not in this end's network {network}: \
                 give it an address there (--dpdk-address) or a router (--dpdk-router)",
                offer.peer.ip()
            );
        }
        let config = config(offer, Role::Initiator);
        let mut path = Self::new(port, config, PeerPlace::At(offer.peer));
        path.find(offer)?;
        control.send(&Ask::Meet)?;
        match answer(control, &mut path)? {
            Answer::Ready => {}
            other => bail!("an unexpected answer: {other:?}"),
        }
        path.say_hello()?;
        let began = Instant::now();
        while !path
            .heard_hello()
            .context("no frame comes back on the link")?
        {
            if began.elapsed() > HELLO_TIMEOUT || interrupt::asked() {
                bail!("no frame came back on the link within {HELLO_TIMEOUT:?}");
            }
            path.wait(Wait::Path)?;
        }
        Ok(path)
    }

    fn find(&mut self, offer: &Offer) -> Result<()> {
        self.open()?;
        let began = Instant::now();
        while self.port.engine().connection(self.config.id).is_none() {
            let is_up = self.port.look();
            self.port.turn();
            if began.elapsed() <= FIND_TIMEOUT && !interrupt::asked() {
                continue;
            }
            if !is_up {
                bail!("the link of {} is down", self.port.config().port);
            }
            bail!(
                "{} was not found within {FIND_TIMEOUT:?} on the link of {}",
                offer.peer.ip(),
                self.port.describe()
            );
        }
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        let opened = self.port.engine().open(self.config.clone(), self.peer);
        match opened {
            Ok(()) => Ok(()),
            Err(error @ ChannelOpenError::Transport(_)) => Err(error.into()),
            Err(error) => Err(error).context("no connection over the port"),
        }
    }

    fn say_hello(&mut self) -> Result<()> {
        Ok(self.connection()?.send_message(&[HELLO, 0])?)
    }

    /// Whether the other end has said hello, and what it said since.
    fn heard_hello(&mut self) -> Result<bool> {
        self.next()?;
        Ok(self.is_met)
    }
}

fn config(offer: &Offer, role: Role) -> Config {
    let protection = Protection::agreed(offer.sealed, offer.secret);
    let (id, epoch) = (ConnectionId(offer.connection), Epoch(offer.epoch));
    let mut config = Config::new(id, epoch, role, protection);
    config.mtu_max = config.mtu_max.min(usize::from(offer.mtu_max));
    config.mtu = config.mtu.min(config.mtu_max);
    config
}
