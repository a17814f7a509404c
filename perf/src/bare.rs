//! Messages there and back over a bare TCP socket, blocking, without any frame: what the kernel
//! alone takes. To set beside `local --link tcp lat`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::machine::{self, Setting};
use crate::meter::{Meter, Of, Timed};
use crate::options::{How, Test};
use crate::path::Facts;
use crate::report::{Measurement, Report};
use crate::run::{Run, What};
use crate::tcp;

/// Measures.
pub fn run(how: &How) -> Result<Report> {
    let run = Run::begin(&Setting {
        pinned: how.cores.len(),
        ends: 2,
        polls: false,
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let (echo, _) = listener.accept()?;
    let there = how.cores.get(1).copied();
    let facts = Facts {
        transport: "tcp",
        path: "a bare socket: read and write, blocking".to_owned(),
        mtu_bytes: tcp::mtu(socket.as_raw_fd()),
        seal: "off",
    };
    let mut results = Vec::new();
    for size in how.sizes(Test::Lat) {
        let bytes = usize::try_from(size)?;
        // The other end of the last size ends with its socket, so each size has its own clone.
        let (mut here, echo) = (socket.try_clone()?, echo.try_clone()?);
        here.set_nodelay(true)?;
        echo.set_nodelay(true)?;
        let other = std::thread::spawn(move || echoes(echo, bytes, there));
        machine::pin(how.cores.get(..1).unwrap_or_default())?;
        results.extend(pings(&mut here, how, bytes)?);
        // A message of all ones is the last.
        here.write_all(&vec![LAST; bytes])?;
        match other.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("the other end failed"),
        }
    }
    let what = What {
        facts,
        memory: "host".to_owned(),
        verified: false,
        pinned_cores: how.cores.len().min(2),
    };
    Ok(run.report(what, results))
}

const LAST: u8 = 0xff;

fn echoes(mut socket: TcpStream, bytes: usize, core: Option<usize>) -> Result<()> {
    machine::pin(core.as_slice())?;
    let mut message = vec![0; bytes];
    loop {
        socket.read_exact(&mut message).context("the echo")?;
        if message.first() == Some(&LAST) {
            return Ok(());
        }
        socket.write_all(&message).context("the echo")?;
    }
}

fn pings(socket: &mut TcpStream, how: &How, bytes: usize) -> Result<Option<Measurement>> {
    let mut message = vec![0; bytes];
    let mut meter = Meter::new()?;
    let mut timed = Timed::new(&mut meter, how.times());
    while timed.goes_on(|| Ok(()))? {
        let began = Instant::now();
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        timed.meter.done(began);
    }
    Ok(meter.finish(&Of {
        test: "lat",
        size_bytes: bytes as u64,
        batch: 1,
        ways: 2,
        ..Of::default()
    }))
}
