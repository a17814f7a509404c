//! The configuration: defaults, under a TOML file, under GENIE_* variables, under flags.
//!
//! A key is written once, in [`Settings`]: its name in the file, its flag and its variable.

mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use genie_controlplane::identity::{NameError, Principal};
use genie_gpudev::DeviceKind;
use genie_server::settings;
pub use genie_server::settings::{FileError, HalfTls, TlsFiles};
pub use genie_server::values::{Address, Count, LogFilter, Size};
pub use values::{
    DeviceChoice, LinkAddress, PollingChoice, Port, ReceiveChoice, SandboxChoice, TensorsChoice,
    TransportChoice,
};

/// Devices of a node.
pub const DEVICES_MAX: usize = 16;
/// Operator libraries of a node.
pub const LIBRARIES_MAX: usize = 64;

settings! {
    /// Where to listen: HOST:PORT
    #[arg(long, env = "GENIE_LISTEN", value_name = "HOST:PORT")]
    listen: Address = "127.0.0.1:7700".parse().ok(),
    /// A device to serve, host:N or cuda:N; may be given several times. host:0?threads=1&memory=4GiB
    /// gives a device its share of this machine
    #[arg(long = "device", env = "GENIE_DEVICES", value_name = "KIND:N", value_delimiter = ',')]
    devices: Vec<DeviceChoice> = Some(vec![DeviceKind::Host(0).into()]),
    /// Listen off loopback without TLS: anybody who reaches the port may use this machine
    #[arg(long, env = "GENIE_INSECURE", num_args = 0..=1, default_missing_value = "true",
          value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new())]
    insecure: bool = Some(false),
    /// The server's certificate chain, PEM
    #[arg(long, env = "GENIE_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: PathBuf = None,
    /// The certificate's private key, PEM
    #[arg(long, env = "GENIE_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf = None,
    /// The authority whose client certificates are let in, PEM
    #[arg(long, env = "GENIE_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: PathBuf = None,
    /// Who may let clients in besides: the common names of the certificates of a `genie-controlplane`
    #[arg(long, env = "GENIE_CONTROL_PLANES", value_name = "NAME", value_delimiter = ',')]
    control_planes: Vec<String> = Some(Vec::new()),
    /// The folder of libtorch, with lib/libtorch_cpu.so in it
    #[arg(long, env = "GENIE_LIBTORCH", value_name = "DIR")]
    libtorch: PathBuf = None,
    /// The executor's binary
    #[arg(long, env = "GENIE_EXECUTOR", value_name = "FILE")]
    executor: PathBuf = None,
    /// A shared object that defines operators (TORCH_LIBRARY), such as torchvision's _C.so, for programs to
    /// use; may be given several times. It is trusted as this program is
    #[arg(long = "operator-library", env = "GENIE_OPERATOR_LIBRARIES", value_name = "FILE",
          value_delimiter = ',')]
    operator_libraries: Vec<PathBuf> = Some(Vec::new()),
    /// What the tensors of one session may take at most
    #[arg(long, env = "GENIE_MEMORY", value_name = "SIZE")]
    memory: Size = Some(Size(8 << 30)),
    /// Threads that one operator may use, if it has work for them; 0: as many as have a free core
    #[arg(long, env = "GENIE_THREADS", value_name = "N")]
    threads: Count<0, 1024> = Some(Count(0)),
    /// What all sessions together may take of this machine's memory; without it, what is there at the
    /// start but for a reserve
    #[arg(long, env = "GENIE_NODE_MEMORY", value_name = "SIZE")]
    node_memory: Size = None,
    /// Where tensors are: auto (the host device's in memory shared with executors, an accelerator's in
    /// pools of its own) or pools (the host's too, filled and read by copies: to test and to measure)
    #[arg(long, env = "GENIE_TENSORS", value_name = "auto|pools")]
    tensors: TensorsChoice = Some(TensorsChoice::Auto),
    /// Whether executors are held in: auto (as far as this machine's kernel allows; what is missing is
    /// said) or off
    #[arg(long, env = "GENIE_SANDBOX", value_name = "auto|off")]
    sandbox: SandboxChoice = Some(SandboxChoice::Auto),
    /// Sessions at a time
    #[arg(long, env = "GENIE_SESSIONS", value_name = "N")]
    sessions: Count<1, 4096> = Some(Count(64)),
    /// Connections at a time of those who have shown who they are. More find room where others are idle
    #[arg(long, env = "GENIE_CONNECTIONS", value_name = "N")]
    connections: Count<8, 65536> = Some(Count(1024)),
    /// Of them, from one address
    #[arg(long, env = "GENIE_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    connections_per_address: Count<4, 65536> = Some(Count(512)),
    /// Connections at a time of those who have not yet. The oldest gives way to a newcomer
    #[arg(long, env = "GENIE_STRANGERS", value_name = "N")]
    strangers: Count<8, 65536> = Some(Count(1024)),
    /// Of them, from one address
    #[arg(long, env = "GENIE_STRANGERS_PER_ADDRESS", value_name = "N")]
    strangers_per_address: Count<4, 65536> = Some(Count(256)),
    /// Records that a session may have under way
    #[arg(long, env = "GENIE_WINDOW_RECORDS", value_name = "N")]
    window_records: Count<64, 1048576> = Some(Count(65536)),
    /// Bytes of bulk that a session may have under way
    #[arg(long, env = "GENIE_WINDOW_BYTES", value_name = "SIZE")]
    window_bytes: Size = Some(Size(256 << 20)),
    /// Plans that the control plane remembers
    #[arg(long, env = "GENIE_PLANS", value_name = "N")]
    plans: Count<1, 1048576> = Some(Count(1024)),
    /// A session that is silent for so long is ended
    #[arg(long, env = "GENIE_LEASE_SECONDS", value_name = "SECONDS")]
    lease_seconds: Count<1, 3600> = Some(Count(10)),
    /// How long sessions may go on after SIGTERM
    #[arg(long, env = "GENIE_DRAIN_SECONDS", value_name = "SECONDS")]
    drain_seconds: Count<0, 3600> = Some(Count(10)),
    /// How long a new connection may take to say what it is
    #[arg(long, env = "GENIE_HANDSHAKE_SECONDS", value_name = "SECONDS")]
    handshake_seconds: Count<1, 60> = Some(Count(5)),
    /// How long one operator of a session may run; 0 is for ever. Its session ends then
    #[arg(long, env = "GENIE_OPERATOR_TIMEOUT_SECONDS", value_name = "SECONDS")]
    operator_timeout_seconds: Count<0, 86400> = Some(Count(0)),
    /// Transport of the data path: auto (DPDK where it works, else TCP) or tcp
    #[arg(long, env = "GENIE_TRANSPORT", value_name = "auto|tcp")]
    transport: TransportChoice = Some(TransportChoice::Auto),
    /// The port that DPDK is to drive: memif:PATH,server, memif:PATH,client, af_xdp:INTERFACE,
    /// af_packet:INTERFACE or pci:0000:03:00.0
    #[arg(long, env = "GENIE_DPDK_PORT", value_name = "PORT")]
    dpdk_port: Port = None,
    /// This host's address on that port, such as 10.77.0.1/24
    #[arg(long, env = "GENIE_DPDK_ADDRESS", value_name = "IP/BITS")]
    dpdk_address: LinkAddress = None,
    /// The router to other networks on that port
    #[arg(long, env = "GENIE_DPDK_ROUTER", value_name = "IP")]
    dpdk_router: std::net::Ipv4Addr = None,
    /// How the poll loop waits: adaptive (backs off when idle) or busy (a core of its own)
    #[arg(long, env = "GENIE_DPDK_POLLING", value_name = "adaptive|busy")]
    dpdk_polling: PollingChoice = Some(PollingChoice::Adaptive),
    /// The core of the poll loop; without it, any of the port's NUMA node
    #[arg(long, env = "GENIE_DPDK_CORE", value_name = "N")]
    dpdk_core: Count<0, 4095> = None,
    /// Gbit/s that one session may send on that port, at each end of it
    #[arg(long, env = "GENIE_DPDK_SESSION_GBIT", value_name = "GBIT")]
    dpdk_session_gbit: Count<1, 1000> = None,
    /// Seal frames with AES-GCM; false: CRC32C only, for a link that is trusted
    #[arg(long, env = "GENIE_DPDK_SEAL", value_name = "BOOL",
          value_parser = clap::builder::BoolishValueParser::new())]
    dpdk_seal: bool = Some(true),
    /// Where packets arrive: auto (in the device's memory where they can, which sealed frames can't)
    /// or staged (in the host's)
    #[arg(long, env = "GENIE_DPDK_RECEIVE", value_name = "auto|staged")]
    dpdk_receive: ReceiveChoice = Some(ReceiveChoice::Auto),
    /// Be a gateway: serve this host's Python processes by this socket, and no devices
    #[arg(long, env = "GENIE_GATEWAY", num_args = 0..=1, value_name = "SOCKET",
          default_missing_value = "/run/genie/gateway.sock")]
    gateway: PathBuf = None,
    /// A gateway's node, by TCP: HOST:PORT
    #[arg(long, env = "GENIE_NODE", value_name = "HOST:PORT")]
    node: Address = None,
    /// A gateway's node, on the DPDK link: IP:PORT
    #[arg(long, env = "GENIE_NODE_DPDK", value_name = "IP:PORT")]
    node_dpdk: std::net::SocketAddrV4 = None,
    /// What to log: error, warn, info, debug, trace, or pairs such as info,genie_dataplane=debug
    #[arg(long, env = "GENIE_LOG", value_name = "FILTER")]
    log: LogFilter = Some(LogFilter("info".to_owned())),
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS needs all of its files.
    #[error(transparent)]
    HalfTls(#[from] HalfTls),
    /// A name that no certificate can have.
    #[error("control_planes has {name:?}, which is no name: {why}")]
    ControlPlane {
        /// As configured.
        name: String,
        /// What is wrong.
        why: NameError,
    },
    /// No device.
    #[error("devices is empty: name at least one, such as \"host:0\"")]
    NoDevices,
    /// More libraries than a node may have.
    #[error("operator_libraries has {0}: a node loads {LIBRARIES_MAX} at most")]
    ManyLibraries(usize),
    /// More devices than a node may have.
    #[error("devices has {0}: a node serves {DEVICES_MAX} at most: start another for the others")]
    ManyDevices(usize),
    /// A device twice.
    #[error("devices has {0} twice: each is an index of its own, so give each its own number")]
    SameDevice(DeviceKind),
    /// A port is reached by others, and nothing guards it.
    #[error(
        "refusing to serve on the DPDK port {port} without TLS: a port reaches beyond this process, \
         whatever `listen` is, and anybody there could run operators here. Either set \
         tls_certificate, tls_key and tls_client_ca (`genie-dataplane certs init DIR` makes a \
         development authority), or say `--insecure`"
    )]
    PortWithoutTls {
        /// The port.
        port: String,
    },
    /// A port needs an address.
    #[error("dpdk_port is set and dpdk_address is not: give this host an address on the link")]
    PortWithoutAddress,
    /// A setting of the link, and no link.
    #[error("{0} is set and dpdk_port is not: say which port DPDK is to drive")]
    LinkWithoutPort(&'static str),
    /// A core that this process may not run on.
    #[error("dpdk_core is {wanted}: this process may use {allowed}")]
    Core {
        /// As configured.
        wanted: usize,
        /// Those it may.
        allowed: String,
    },
    /// A gateway needs a node.
    #[error("gateway is set, and neither node nor node_dpdk: say where its node is")]
    GatewayWithoutNode,
    /// A gateway's node, and no gateway.
    #[error("{0} is set and gateway is not: only a gateway has a node")]
    NodeWithoutGateway(&'static str),
    /// The address is open and nothing guards it.
    #[error(
        "refusing to listen on {address} without TLS: anybody who reaches it could run operators \
         here. Either set tls_certificate, tls_key and tls_client_ca (`genie-dataplane certs init \
         DIR` makes a development authority), or say `--insecure`"
    )]
    OpenWithoutTls {
        /// The address.
        address: String,
    },
}

/// The DPDK link.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    missing_docs,
    reason = "each field is the key of the same name in `Settings`, after dpdk_"
)]
pub struct DpdkConfig {
    pub port: genie_poll::PortSpec,
    pub address: LinkAddress,
    pub router: Option<std::net::Ipv4Addr>,
    pub polling: PollingChoice,
    pub core: Option<usize>,
    pub seal: bool,
    pub receive: ReceiveChoice,
    pub session_gbit: Option<u64>,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    missing_docs,
    reason = "each field is the key of the same name in `Settings`"
)]
pub struct GatewayConfig {
    pub socket: PathBuf,
    pub node: Option<Address>,
    pub node_dpdk: Option<std::net::SocketAddrV4>,
}

/// A configuration that was checked.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    missing_docs,
    reason = "each field is the key of the same name in `Settings`"
)]
pub struct Config {
    pub listen: Address,
    pub devices: Vec<DeviceChoice>,
    pub insecure: bool,
    pub tls: Option<TlsFiles>,
    pub control_planes: Vec<Principal>,
    pub libtorch: Option<PathBuf>,
    pub executor: Option<PathBuf>,
    pub operator_libraries: Vec<PathBuf>,
    pub memory_bytes: u64,
    pub node_memory_bytes: Option<u64>,
    pub threads: u32,
    pub tensors: TensorsChoice,
    pub sandbox: SandboxChoice,
    pub sessions_max: usize,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub strangers_max: usize,
    pub strangers_per_address_max: usize,
    pub window_records: u64,
    pub window_bytes: u64,
    pub plans_max: usize,
    pub lease: Duration,
    pub drain: Duration,
    pub handshake: Duration,
    pub operator_max: Option<Duration>,
    pub transport: TransportChoice,
    pub dpdk: Option<DpdkConfig>,
    pub gateway: Option<GatewayConfig>,
    pub log: LogFilter,
}

impl Settings {
    /// These over the defaults, checked.
    ///
    /// # Errors
    /// Keys that do not go together.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let all = self.over(Self::defaults());
        let tls = TlsFiles::of(all.tls_certificate, all.tls_key, all.tls_client_ca)?;
        let names = all.control_planes.unwrap_or_default().into_iter();
        let control_planes = names
            .map(|name| match name.parse() {
                Ok(principal) => Ok(principal),
                Err(why) => Err(ConfigError::ControlPlane { name, why }),
            })
            .collect::<Result<_, _>>()?;
        let devices = all.devices.unwrap_or_default();
        if devices.is_empty() {
            return Err(ConfigError::NoDevices);
        }
        if devices.len() > DEVICES_MAX {
            return Err(ConfigError::ManyDevices(devices.len()));
        }
        let operator_libraries = all.operator_libraries.unwrap_or_default();
        if operator_libraries.len() > LIBRARIES_MAX {
            return Err(ConfigError::ManyLibraries(operator_libraries.len()));
        }
        let kinds: Vec<_> = devices.iter().map(|device| device.kind).collect();
        if let Some(twice) = (1..kinds.len()).find(|&at| kinds[..at].contains(&kinds[at])) {
            return Err(ConfigError::SameDevice(kinds[twice]));
        }
        let link = [
            ("dpdk_address", all.dpdk_address.is_some()),
            ("dpdk_router", all.dpdk_router.is_some()),
            ("dpdk_core", all.dpdk_core.is_some()),
            ("node_dpdk", all.node_dpdk.is_some()),
        ];
        if all.dpdk_port.is_none()
            && let Some(key) = first_set(&link)
        {
            return Err(ConfigError::LinkWithoutPort(key));
        }
        let nodes = [
            ("node", all.node.is_some()),
            ("node_dpdk", all.node_dpdk.is_some()),
        ];
        if all.gateway.is_none()
            && let Some(key) = first_set(&nodes)
        {
            return Err(ConfigError::NodeWithoutGateway(key));
        }
        let dpdk = match (all.dpdk_port, all.dpdk_address) {
            (Some(Port(port)), Some(address)) => Some(DpdkConfig {
                port,
                address,
                router: all.dpdk_router,
                polling: all.dpdk_polling.unwrap_or_default(),
                core: all.dpdk_core.and_then(|core| usize::try_from(core.0).ok()),
                seal: all.dpdk_seal.unwrap_or(true),
                receive: all.dpdk_receive.unwrap_or_default(),
                session_gbit: all.dpdk_session_gbit.map(|gbit| gbit.0),
            }),
            (Some(_), None) => return Err(ConfigError::PortWithoutAddress),
            (None, _) => None,
        };
        let guarded = tls.is_some() || all.insecure == Some(true);
        if let Some(DpdkConfig { port, .. }) = &dpdk
            && all.transport == Some(TransportChoice::Auto)
            && !guarded
        {
            let port = port.to_string();
            return Err(ConfigError::PortWithoutTls { port });
        }
        let gateway = match all.gateway {
            Some(_) if all.node.is_none() && all.node_dpdk.is_none() => {
                return Err(ConfigError::GatewayWithoutNode);
            }
            Some(socket) => Some(GatewayConfig {
                socket,
                node: all.node,
                node_dpdk: all.node_dpdk,
            }),
            None => None,
        };
        // Every other key has a default.
        #[expect(
            clippy::expect_used,
            reason = "a test goes through all keys without a default"
        )]
        fn set<T>(value: Option<T>) -> T {
            value.expect("the key has a default")
        }
        let seconds = |count: u64| Duration::from_secs(count);
        let small = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Config {
            listen: set(all.listen),
            devices,
            insecure: set(all.insecure),
            tls,
            control_planes,
            libtorch: all.libtorch,
            executor: all.executor,
            operator_libraries,
            memory_bytes: set(all.memory).0,
            node_memory_bytes: all.node_memory.map(|size| size.0),
            threads: u32::try_from(set(all.threads).0).unwrap_or(0),
            tensors: set(all.tensors),
            sandbox: set(all.sandbox),
            sessions_max: small(set(all.sessions).0),
            connections_max: small(set(all.connections).0),
            connections_per_address_max: small(set(all.connections_per_address).0),
            strangers_max: small(set(all.strangers).0),
            strangers_per_address_max: small(set(all.strangers_per_address).0),
            window_records: set(all.window_records).0,
            window_bytes: set(all.window_bytes).0,
            plans_max: small(set(all.plans).0),
            lease: seconds(set(all.lease_seconds).0),
            drain: seconds(set(all.drain_seconds).0),
            handshake: seconds(set(all.handshake_seconds).0),
            operator_max: Some(seconds(set(all.operator_timeout_seconds).0))
                .filter(|most| !most.is_zero()),
            transport: set(all.transport),
            dpdk,
            gateway,
            log: set(all.log),
        })
    }
}

/// Every layer: the flags and variables over the file, if there is one; and what they come to.
///
/// # Errors
/// The file's; keys that do not go together.
pub fn read(flags: Settings, file: Option<&Path>) -> Result<(Settings, Config), ConfigError> {
    let settings = flags.over_file(file)?;
    Ok((settings.clone(), settings.into_config()?))
}

/// The first of these keys that was set.
fn first_set(keys: &[(&'static str, bool)]) -> Option<&'static str> {
    let (key, _) = keys.iter().find(|(_, is_set)| *is_set)?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../genie-dataplane.example.toml");

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Ok(Settings::parse(text, Path::new("node.toml"))?)
    }

    #[test]
    fn the_example_lists_every_key_with_its_default() {
        let defaults = Settings::defaults();
        assert_eq!(parse(EXAMPLE).unwrap(), defaults.clone());
        let optional = [
            "tls_certificate",
            "tls_key",
            "tls_client_ca",
            "libtorch",
            "executor",
            "node_memory",
            "dpdk_port",
            "dpdk_address",
            "dpdk_router",
            "dpdk_core",
            "dpdk_session_gbit",
            "gateway",
            "node",
            "node_dpdk",
        ];
        for key in Settings::KEYS {
            let shown = if optional.contains(key) {
                format!("# {key} = ")
            } else {
                format!("{key} = ")
            };
            let lines = EXAMPLE
                .lines()
                .filter(|line| line.starts_with(&shown))
                .count();
            assert_eq!(lines, 1, "{key} is in the example {lines} times");
        }
    }

    #[test]
    fn every_commented_key_of_the_example_parses() {
        let all: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(key) if key.contains(" = ") => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert!(parse(&all).unwrap().into_config().unwrap().tls.is_some());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_known_ones() {
        let error = parse("listen = \"127.0.0.1:1\"\n\nlissen = 3\n")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("node.toml:3: "), "{error}");
        assert!(
            error.contains("lissen") && error.contains("window_bytes"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_its_line_its_key_and_what_is_allowed() {
        for (text, line, key, allowed) in [
            ("memory = \"8GB\"", 1, "memory", "GiB"),
            ("\nsessions = 0", 2, "sessions", "from 1 to 4096"),
            ("devices = [\"host:0\", \"gpu:0\"]", 1, "devices", "cuda:N"),
            ("\n\nlisten = \"here\"", 3, "listen", "HOST:PORT"),
            ("insecure = \"maybe\"", 1, "insecure", "boolean"),
            ("log = \"loud\"", 1, "log", "trace"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("node.toml:{line}: {key}: ")),
                "{error}"
            );
            assert!(error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let error = parse("sessions = 1\nmemory = \n").unwrap_err().to_string();
        assert!(error.starts_with("node.toml:2: "), "{error}");
    }

    #[test]
    fn the_higher_layer_wins() {
        let file = parse("sessions = 3\nplans = 9").unwrap();
        let flags = Settings {
            sessions: Some(Count(5)),
            ..Settings::default()
        };
        let config = flags.over(file).into_config().unwrap();
        assert_eq!(
            (
                config.sessions_max,
                config.plans_max,
                config.connections_max
            ),
            (5, 9, 1024)
        );
    }

    #[test]
    fn a_link_and_a_gateway_need_their_other_half() {
        for (text, error) in [
            (
                "dpdk_port = \"af_xdp:eth0\"",
                ConfigError::PortWithoutAddress,
            ),
            ("gateway = \"a.sock\"", ConfigError::GatewayWithoutNode),
            (
                "gateway = \"a.sock\"\nnode_dpdk = \"10.77.0.2:7700\"",
                ConfigError::LinkWithoutPort("node_dpdk"),
            ),
            (
                "dpdk_address = \"10.77.0.2/24\"",
                ConfigError::LinkWithoutPort("dpdk_address"),
            ),
            ("dpdk_core = 1", ConfigError::LinkWithoutPort("dpdk_core")),
            (
                "node = \"10.0.0.7:7700\"",
                ConfigError::NodeWithoutGateway("node"),
            ),
        ] {
            assert_eq!(parse(text).unwrap().into_config(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_port_is_served_with_tls_or_said_to_be_insecure() {
        let port = "dpdk_port = \"memif:/run/a,server\"\ndpdk_address = \"10.77.0.1/24\"\n";
        let gateway = format!("{port}gateway = \"a.sock\"\nnode = \"10.0.0.7:7700\"\n");
        let tls = "tls_key = \"k\"\ntls_certificate = \"c\"\ntls_client_ca = \"a\"\n";
        for open in [port, &gateway] {
            let refused = parse(open).unwrap().into_config().unwrap_err();
            let said = refused.to_string();
            assert!(
                said.contains("memif:/run/a,server") && said.contains("--insecure"),
                "{said}"
            );
            for guard in ["insecure = true\n", tls, "transport = \"tcp\"\n"] {
                let text = format!("{open}{guard}");
                assert!(parse(&text).unwrap().into_config().is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn each_device_once() {
        let two = parse("devices = [\"host:0\", \"host:1?threads=1\"]").unwrap();
        assert_eq!(two.into_config().unwrap().devices.len(), 2);
        let twice = parse("devices = [\"host:0\", \"host:0?threads=1\"]").unwrap();
        let refused = twice.into_config().unwrap_err();
        assert_eq!(refused, ConfigError::SameDevice(DeviceKind::Host(0)));
    }

    #[test]
    fn half_of_tls_is_refused() {
        let error = parse("tls_key = \"k\"\ntls_certificate = \"c\"")
            .unwrap()
            .into_config();
        assert_eq!(
            error.unwrap_err(),
            HalfTls {
                missing: "tls_client_ca"
            }
            .into()
        );
    }
}
