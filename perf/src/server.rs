//! `server`: the other end, for anybody who reaches its port; one at a time.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::control::{Control, GREETING, readable};
use crate::interrupt;
use crate::machine;
use crate::options::Server;
use crate::serve::{Trust, serve};

/// How often it looks whether somebody wants it to end.
const LOOK: Duration = Duration::from_millis(200);
/// How long a newcomer may take to say what it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until Ctrl-C.
pub fn run(options: &Server) -> Result<()> {
    machine::pin(&options.cores)?;
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("can't listen on {}", options.listen))?;
    let mut out = std::io::stdout();
    // Another program waits for this line.
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    if !options.listen.ip().is_loopback() {
        eprintln!(
            "genie-perf: whoever reaches {} may take this machine's time and memory",
            options.listen
        );
    }
    while !interrupt::asked() {
        if !readable(listener.as_raw_fd(), LOOK) {
            continue;
        }
        let (socket, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // It left again, or there are no descriptors now: the next one may fare better.
            Err(error) => {
                eprintln!("genie-perf: nobody could be let in: {error}");
                std::thread::sleep(LOOK);
                continue;
            }
        };
        match one(socket, options.cores.len()) {
            // Whoever started it need not listen any more.
            Ok(()) => drop(writeln!(out, "measured with {peer}")),
            Err(error) => eprintln!("genie-perf: {peer}: {error:#}"),
        }
        if options.once {
            break;
        }
    }
    Ok(())
}

fn one(socket: TcpStream, pinned: usize) -> Result<()> {
    let mut control = Control::over_tcp(socket)?;
    if !control.expect(GREETING, GREETING_TIMEOUT)? {
        bail!("not a genie-perf client of this version");
    }
    control.send_bytes(GREETING)?;
    serve(&mut control, pinned, Trust::Stranger)
}
