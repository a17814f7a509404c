//! An emulated link in front of a node: what passes has a rate and comes late. Both ways of a node share
//! nothing, as on a full-duplex cable; all connections to a node share its cable.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes that are taken at a time.
const PIECE: usize = 64 << 10;
/// Pieces under way at most: who sends more waits, as by TCP's window.
const PIECES_MAX: usize = 64;

/// What a link is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Bits a second.
    pub rate: f64,
    /// One way.
    pub delay: Duration,
}

/// Parses `rate=10gbit,delay=50us`.
///
/// # Errors
/// What is not of that form.
pub fn parse(text: &str) -> Result<Shape, String> {
    let wanted = || format!("{text:?} is no link: say it like rate=10gbit,delay=50us");
    let (mut rate, mut delay) = (None, None);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(wanted)?;
        let digits = value.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let (number, unit) = value.split_at(digits.unwrap_or(value.len()));
        let number: f64 = number.parse().map_err(|_| wanted())?;
        match (key, unit) {
            ("rate", "gbit") => rate = Some(number * 1e9),
            ("rate", "mbit") => rate = Some(number * 1e6),
            ("delay", "us") => delay = Some(number / 1e6),
            ("delay", "ms") => delay = Some(number / 1e3),
            _ => return Err(wanted()),
        }
    }
    let (rate, delay) = (rate.ok_or_else(wanted)?, delay.unwrap_or(0.0));
    if !(1e5..=1e12).contains(&rate) || !(0.0..=10.0).contains(&delay) {
        return Err(format!(
            "{text:?}: a rate from 0.1mbit to 1000gbit, a delay to 10s"
        ));
    }
    Ok(Shape {
        rate,
        delay: Duration::from_secs_f64(delay),
    })
}

/// One way of a cable: when it is free again.
#[derive(Clone)]
struct Way(Arc<Mutex<Instant>>);

impl Way {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// When `bytes` that are sent now are there.
    fn pass(&self, bytes: usize, shape: Shape) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / shape.rate);
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(Instant::now()) + takes;
        *free + shape.delay
    }
}

/// A door to a node behind such a link; stays open as long as this process lives.
///
/// # Errors
/// No port left.
pub fn before(node: SocketAddr, shape: Shape) -> Result<SocketAddr> {
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = door.local_addr()?;
    let (to, from) = (Way::new(), Way::new());
    std::thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || {
            for near in door.incoming().flatten() {
                let Ok(far) = TcpStream::connect(node) else {
                    continue;
                };
                let _ = near.set_nodelay(true).and(far.set_nodelay(true));
                let both = (near.try_clone(), far.try_clone());
                if let (Ok(near_too), Ok(far_too)) = both {
                    carry(near, far_too, to.clone(), shape);
                    carry(far, near_too, from.clone(), shape);
                }
            }
        })?;
    Ok(address)
}

type Piece = (Instant, Vec<u8>);

fn carry(from: TcpStream, to: TcpStream, way: Way, shape: Shape) {
    let (put, take) = sync_channel(PIECES_MAX);
    std::thread::spawn(move || take_in(from, &put, &way, shape));
    std::thread::spawn(move || let_out(to, &take));
}

fn take_in(mut from: TcpStream, put: &SyncSender<Piece>, way: &Way, shape: Shape) {
    let mut piece = vec![0; PIECE];
    while let Ok(len @ 1..) = from.read(&mut piece) {
        let there = way.pass(len, shape);
        if put.send((there, piece[..len].to_vec())).is_err() {
            break;
        }
    }
}

fn let_out(mut to: TcpStream, take: &Receiver<Piece>) {
    while let Ok((there, piece)) = take.recv() {
        std::thread::sleep(there.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read() {
        let shape = parse("rate=10gbit,delay=50us").unwrap();
        assert_eq!(shape.rate, 1e10);
        assert_eq!(shape.delay, Duration::from_micros(50));
        assert_eq!(parse("rate=2.5mbit").unwrap().delay, Duration::ZERO);
        for text in [
            "",
            "delay=1ms",
            "rate=10",
            "rate=xgbit",
            "rate=0gbit",
            "loss=1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_passes_has_the_rate_and_comes_late() {
        let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let shape = parse("rate=80mbit,delay=20ms").unwrap();
        let door = before(node.local_addr().unwrap(), shape).unwrap();
        let mut near = TcpStream::connect(door).unwrap();
        let (mut far, _) = node.accept().unwrap();
        let began = Instant::now();
        near.write_all(&[1]).unwrap();
        far.read_exact(&mut [0]).unwrap();
        let one = began.elapsed();
        assert!(one >= Duration::from_millis(20), "{one:?}");
        // 2 MB at 10 MB a second.
        let writer = std::thread::spawn(move || near.write_all(&vec![2; 2_000_000]).map(|()| near));
        let mut all = vec![0; 2_000_000];
        let began = Instant::now();
        far.read_exact(&mut all).unwrap();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(180), "{took:?}");
        assert!(all.iter().all(|&byte| byte == 2));
        drop(writer.join().unwrap());
    }
}
