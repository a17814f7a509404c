//! The command line.

pub mod port;
pub mod size;
pub mod times;
pub mod workload;

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use genie_gpudev::DeviceKind;
use genie_gpudev::device::DeviceNameError;
use serde::{Deserialize, Serialize};

use self::port::PortOptions;
use self::size::{Sizes, parse_sizes};
use self::times::{Times, parse_seconds};

/// Where `server` listens and `client` looks if nothing else is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7710";

/// Measures Genie's data path.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, after_help = AFTER_HELP)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "Exit status: 0 measured, 1 bytes or results differed, 2 not measured. \
    Ctrl-C ends a run with what was measured so far.";

const SERVER_HELP: &str = "\
Clients are served one at a time, in the order they come. One that has waited for a second is told
that the server is busy, and ends with exit status 2.

With --dpdk-port DPDK drives that port while the server runs: clients that have a port on the same
link measure over it. They still meet the server at --listen, which the kernel's TCP carries.

A NIC (bound to vfio-pci), to be measured from another machine:
  genie-perf server --listen 0.0.0.0:7710 --dpdk-port pci:0000:03:00.0 --cores 2
Two shells on one machine:
  genie-perf server --dpdk-port memif:/tmp/perf.sock,server";

const CLIENT_HELP: &str = "\
--transport auto takes DPDK where both ends have a port and frames pass between them, and TCP where
not, with a line that says why. A server serves one client at a time: while it is busy with another
this ends with exit status 2.

A NIC (bound to vfio-pci), to a server on another machine (`genie-perf server --help`):
  genie-perf client 10.0.0.7:7710 bw --transport dpdk --dpdk-port pci:0000:03:00.0 --cores 2
Two shells on one machine:
  genie-perf client 127.0.0.1:7710 bw --transport dpdk --dpdk-port memif:/tmp/perf.sock,client";

const WORKLOAD_HELP: &str = "\
Starts the nodes and the programs itself, and compares every token with what one node gives: exit status
1 where one differs.

Try it:
  genie-perf workload llm --model gpt2-tiny --context 128
The first table of SPECIFICATION.md:
  genie-perf workload llm --model gpt2 --python .venv/bin/python --json llm.json
As over a network:
  genie-perf workload llm --emulate rate=10gbit,delay=50us";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The other end of `client`, until it is stopped.
    #[command(after_help = SERVER_HELP)]
    Server(Server),
    /// Measure against `genie-perf server`, or against a node (genie-dataplane).
    #[command(after_help = CLIENT_HELP)]
    Client(Client),
    /// Start both ends on this machine and measure the link between them.
    Local(Local),
    /// Measure allocation from a pool.
    Pool(Pool),
    /// Measure copies to, from and on a device, and receiving into it: by way of host memory, and
    /// directly.
    Device(DeviceTest),
    /// Run whole programs over several nodes, placed by one policy after the other.
    #[command(after_help = WORKLOAD_HELP)]
    Workload(workload::Workload),
    /// Messages there and back over a bare TCP socket: what the kernel alone takes.
    #[command(hide = true)]
    BareTcp(BareTcp),
    /// The other end of `local`.
    #[command(hide = true)]
    End(End),
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Test {
    /// Transfers into the other end's memory, as many bytes as possible.
    Bw,
    /// A message there and back, one at a time.
    Lat,
    /// Small messages, as many as possible.
    Rate,
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// The fastest that both ends have and that works.
    Auto,
    /// Genie's transport over DPDK.
    Dpdk,
    /// Genie's TCP link.
    Tcp,
    /// Shared memory.
    Shm,
}

/// A link on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinkKind {
    /// DPDK's shared-memory port (net_memif).
    Memif,
    /// DPDK's AF_XDP port over a veth pair, each end in a network namespace. As root.
    AfXdp,
    /// TCP over loopback.
    Tcp,
    /// A shared-memory channel alone: rings and doorbells between a program and a loop, no engine.
    Shm,
    /// From program to program: a shared-memory channel to an engine, a link in memory to a second
    /// engine, its channel to a program that answers. lat and rate.
    Engine,
}

/// Whose memory the bytes are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// The machine's.
    Host,
    /// An accelerator's.
    Device,
}

/// Whether frames are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seal {
    /// AES-GCM over DPDK; TLS to a node, with its certificates.
    On,
    /// A checksum at most.
    Off,
}

/// How to measure.
#[derive(Clone, Debug, Args)]
pub struct How {
    /// Size of a message or transfer: 64, a list (64,4K,1M) or a sweep in powers of two (4K..64M).
    /// Default: 64 bytes for lat and rate, 1 MiB and 64 MiB for bw.
    #[arg(long, value_parser = parse_sizes)]
    pub size: Option<Sizes>,
    /// Transfers or messages under way at a time. Default: 4 MiB of transfers, 2 at least and 64 at
    /// most; 64 messages. lat has always one.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: Option<u32>,
    /// Seconds to measure each size.
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    pub time: Duration,
    /// Seconds before that, not counted.
    #[arg(long, default_value = "0.3", value_parser = parse_seconds)]
    pub warmup: Duration,
    /// Whose memory to send from and to.
    #[arg(long, value_enum, default_value = "host")]
    pub memory: Memory,
    /// The device of --memory device: cuda:0, host:0.
    #[arg(long, default_value = "cuda:0", value_parser = parse_device)]
    pub device: DeviceKind,
    /// Encrypt. `on` is for DPDK (AES-GCM), and for a node (TLS: by --ca, --cert and --key). Between
    /// two ends of genie-perf TCP and a bare channel (shm) are never encrypted, and `on` is refused
    /// there.
    /// Default: as the link is used; the report says.
    #[arg(long, value_enum)]
    pub seal: Option<Seal>,
    /// Compare every byte, outside the measured time. Exit status 1 on a difference.
    #[arg(long)]
    pub verify: bool,
    /// Cores to pin to: a list. `local` takes two, its own and the other end's.
    #[arg(long, value_delimiter = ',', value_name = "CORE")]
    pub cores: Vec<usize>,
    /// Change one byte of one transfer, to see --verify find it.
    #[arg(long, hide = true)]
    pub flip_byte: bool,
    #[command(flatten)]
    pub output: Output,
}

/// Where results go.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Write the results as JSON (schema/report-1.json) to FILE, or to standard output for `-`
    /// (then no table).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results as one page with plots to FILE.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Options of `server`.
#[derive(Debug, Args)]
pub struct Server {
    /// Where to listen. Whoever reaches it may measure: off loopback only among friends.
    #[arg(long, default_value = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
    /// Cores to pin to.
    #[arg(long, value_delimiter = ',', value_name = "CORE")]
    pub cores: Vec<usize>,
    /// End after one client.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub port: PortOptions,
}

/// Options of `client`.
#[derive(Debug, Args)]
pub struct Client {
    /// The server or node, HOST:PORT.
    pub address: String,
    /// What to measure.
    #[arg(value_enum)]
    pub test: Test,
    /// What is to carry the bytes.
    #[arg(long, value_enum, default_value = "auto")]
    pub transport: Transport,
    #[command(flatten)]
    pub port: PortOptions,
    #[command(flatten)]
    pub how: How,
    /// The authority's certificate (TLS to a node).
    #[arg(long, env = "GENIE_CA")]
    pub ca: Option<String>,
    /// This client's certificate (TLS to a node).
    #[arg(long, env = "GENIE_CERT")]
    pub cert: Option<String>,
    /// Its key (TLS to a node).
    #[arg(long, env = "GENIE_KEY")]
    pub key: Option<String>,
}

/// Options of `local`.
#[derive(Debug, Args)]
pub struct Local {
    /// The link to measure.
    #[arg(long, value_enum)]
    pub link: LinkKind,
    /// What to measure.
    #[arg(value_enum)]
    pub test: Test,
    #[command(flatten)]
    pub how: How,
}

/// Options of `pool`.
#[derive(Debug, Args)]
pub struct Pool {
    /// Whose memory the pool is of: host:0, cuda:0.
    #[arg(long, default_value = "host:0", value_parser = parse_device)]
    pub device: DeviceKind,
    /// Sizes of an allocation. Default: 64 bytes, 4 KiB, 64 KiB and 1 MiB.
    #[arg(long, value_parser = parse_sizes)]
    pub size: Option<Sizes>,
    /// Allocations held at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,
    /// Seconds to measure each size.
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    pub time: Duration,
    #[command(flatten)]
    pub output: Output,
}

/// Options of `device`.
#[derive(Debug, Args)]
pub struct DeviceTest {
    /// The device: host:0, cuda:0.
    #[arg(long, default_value = "host:0", value_parser = parse_device)]
    pub device: DeviceKind,
    /// Sizes of a copy. Default: 64 KiB, 1 MiB and 64 MiB.
    #[arg(long, value_parser = parse_sizes)]
    pub size: Option<Sizes>,
    /// Seconds to measure each size, and each way of receiving (that one 2 at most).
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    pub time: Duration,
    /// Compare every byte that was copied, outside the measured time.
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub output: Output,
}

/// Options of `bare-tcp`.
#[derive(Debug, Args)]
pub struct BareTcp {
    #[command(flatten)]
    pub how: How,
}

/// Options of `end`.
#[derive(Debug, Args)]
pub struct End {
    /// The socket to the end that measures, inherited.
    #[arg(long)]
    pub control: RawFd,
    /// Cores to pin to.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
}

fn parse_device(text: &str) -> Result<DeviceKind, String> {
    text.parse()
        .map_err(|error: DeviceNameError| error.to_string())
}

impl Test {
    /// Its name in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bw => "bw",
            Self::Lat => "lat",
            Self::Rate => "rate",
        }
    }
}

impl How {
    /// Whose memory, as a report names it.
    #[must_use]
    pub fn memory_name(&self) -> String {
        match self.memory {
            Memory::Host => "host".to_owned(),
            Memory::Device => self.device.to_string(),
        }
    }

    /// The sizes to measure.
    #[must_use]
    pub fn sizes(&self, test: Test) -> Vec<u64> {
        match (&self.size, test) {
            (Some(sizes), _) => sizes.0.clone(),
            (None, Test::Bw) => vec![1 << 20, 64 << 20],
            (None, Test::Lat | Test::Rate) => vec![64],
        }
    }

    /// When a test is warm, and when it is over.
    #[must_use]
    pub fn times(&self) -> Times {
        Times {
            warmup: self.warmup,
            time: self.time,
        }
    }

    /// What is under way at a time.
    #[must_use]
    pub fn batch(&self, test: Test, size: u64) -> u32 {
        match (test, self.batch) {
            (Test::Lat, _) => 1,
            (_, Some(batch)) => batch,
            // More than a cache holds would measure the memory behind it.
            (Test::Bw, None) => ((4 << 20) / size).clamp(2, 64) as u32,
            (Test::Rate, None) => 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn batches_fit_the_sizes() {
        let parsed = Options::try_parse_from(["genie-perf", "local", "--link", "tcp", "bw"]);
        let Command::Local(Local { how, .. }) = parsed.unwrap().command else {
            panic!("not local");
        };
        assert_eq!(how.batch(Test::Bw, 64 << 20), 2);
        assert_eq!(how.batch(Test::Bw, 1 << 20), 4);
        assert_eq!(how.batch(Test::Bw, 64), 64);
        assert_eq!(how.batch(Test::Lat, 64), 1);
        assert_eq!(how.sizes(Test::Lat), [64]);
    }
}
