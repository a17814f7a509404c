//! `server`: the other end, for anybody who reaches its port; one at a time.

mod door;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;

use self::door::Door;
use crate::dpdk::DpdkPort;
use crate::interrupt;
use crate::machine;
use crate::options::Server;
use crate::options::port::SERVER_NETWORK;
use crate::serve::{Lends, serve};

/// How often it looks whether somebody wants it to end.
const LOOK: Duration = Duration::from_millis(200);
/// How often a port is looked after that nobody measures.
const REST: Duration = Duration::from_millis(2);

/// Serves until Ctrl-C.
pub fn run(options: &Server) -> Result<()> {
    machine::pin(&options.cores)?;
    let link = options.port.link(SERVER_NETWORK);
    // Whoever names a port wants it, or to hear why not.
    let mut port = link.map(DpdkPort::open).transpose()?;
    let door = Door::open(options.listen)?;
    let mut out = std::io::stdout();
    // Another program waits for this line.
    writeln!(out, "listening on {}", door.address())?;
    if let Some(port) = &port {
        writeln!(out, "DPDK port {}", port.describe())?;
    }
    out.flush()?;
    if let Some(pages) = port.as_ref().and_then(DpdkPort::pages) {
        eprintln!("genie-perf: DPDK runs on {pages}");
    }
    if !options.listen.ip().is_loopback() {
        eprintln!(
            "genie-perf: whoever reaches {} may take this machine's time and memory",
            options.listen
        );
    }
    while !interrupt::asked() {
        let wait = if port.is_some() { REST } else { LOOK };
        let Some(mut guest) = door.next(wait)? else {
            if let Some(port) = &mut port {
                port.rest();
            }
            continue;
        };
        let lends = Lends::Port(port.as_mut());
        match serve(&mut guest.control, options.cores.len(), lends) {
            // Whoever started it need not listen any more.
            Ok(()) => drop(writeln!(out, "measured with {}", guest.peer)),
            Err(error) => eprintln!("genie-perf: {}: {error:#}", guest.peer),
        }
        if options.once {
            break;
        }
    }
    Ok(())
}
