//! `server` and `client` on two machines, each with a NIC for the kernel and one for DPDK: network
//! namespaces, with a veth pair for either. As root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use std::process::{Command, Stdio};

use common::{Ran, Running, alone, command, is_missing};

/// Two namespaces that see each other over two pairs; gone with the value.
struct Machines([String; 2]);

impl Machines {
    fn new() -> Self {
        let id = std::process::id();
        // At most 15 bytes in a name of an interface.
        let machines = Self([format!("gp-two-{id}-a"), format!("gp-two-{id}-b")]);
        let [a, b] = &machines.0;
        for name in [a, b] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        for pair in ["kernel", "data"] {
            ip(&[
                "link", "add", pair, "netns", a, "type", "veth", "peer", "name", pair, "netns", b,
            ]);
        }
        for (name, address) in [(a, "10.177.0.1/24"), (b, "10.177.0.2/24")] {
            ip(&["-n", name, "address", "add", address, "dev", "kernel"]);
            for interface in ["kernel", "data"] {
                ip(&["-n", name, "link", "set", interface, "up"]);
            }
        }
        machines
    }

    /// genie-perf on one of them.
    fn perf(&self, machine: usize, arguments: &[&str]) -> Command {
        let perf = command(arguments);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[machine]]);
        command.arg(perf.get_program()).args(perf.get_args());
        command
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("`ip`");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {said}");
}

#[test]
fn two_machines_with_a_nic_for_dpdk_measure_over_it() {
    let _alone = alone();
    if is_missing("af-xdp") {
        return;
    }
    let machines = Machines::new();
    let listen = ["server", "--listen", "10.177.0.1:7710", "--dpdk-port"];
    let client = ["client", "10.177.0.1:7710", "--dpdk-port"];
    for (kind, network) in [("af_xdp", "10.77.0.1/24"), ("af_packet", "198.18.0.2/24")] {
        let port = format!("{kind}:data");
        let own = [&port[..], "--dpdk-address", network];
        let mut server = machines.perf(0, &[&listen[..], &own].concat());
        let mut server = Running::start(&mut server);
        assert_eq!(server.line(), "listening on 10.177.0.1:7710");
        let said = server.line();
        assert!(
            said.contains(network) && said.contains("MTU 1500"),
            "{said}"
        );
        let mut there = [&client[..], &[&port], &["--transport", "dpdk"]].concat();
        if kind == "af_xdp" {
            there.extend(["--dpdk-address", "10.77.0.2/24"]);
        }
        for test in [
            ["bw", "--size=64,200001"],
            ["lat", "--size=64,200001"],
            ["rate", "--size=64"],
        ] {
            let quick = ["--verify", "--time=0.05", "--warmup=0.01", "--json=-"];
            let mut client = machines.perf(1, &[&there[..], &test, &quick].concat());
            let ran = Ran::of(&client.stdin(Stdio::null()).output().expect("`ip`"));
            assert_eq!(ran.code, Some(0), "{kind} {test:?}: {}", ran.errors);
            let json = ran.json();
            assert_eq!(json["transport"], "dpdk");
            assert_eq!(json["mtu_bytes"], 1500, "{json}");
            for result in json["results"].as_array().unwrap() {
                assert_eq!(result["verify_errors"], 0, "{result}");
            }
        }
    }
}
