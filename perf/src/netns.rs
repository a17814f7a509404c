//! Two network namespaces with a veth pair between them, made for one run and gone after it.

use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

/// Moves this thread, and what it starts, into a namespace by its name.
pub fn enter(name: &str) -> Result<()> {
    // The name becomes part of a path.
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        bail!("{name:?} is no name of a network namespace");
    }
    let file = std::fs::File::open(format!("/run/netns/{name}"))
        .with_context(|| format!("no network namespace {name}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("can't enter network namespace {name}"))
}

/// The pair; it goes with the value.
pub struct VethPair {
    /// Names of the namespaces.
    pub namespaces: [String; 2],
    /// The interface in each.
    pub interfaces: [String; 2],
}

impl VethPair {
    /// Makes both namespaces and the pair. Needs root, and `ip`.
    pub fn new() -> Result<Self> {
        if !geteuid().is_root() {
            bail!("AF_XDP needs root, to make a veth pair and to load its program");
        }
        let id = std::process::id();
        let pair = Self {
            namespaces: [format!("genie-perf-{id}-a"), format!("genie-perf-{id}-b")],
            // At most 15 bytes.
            interfaces: [format!("gp{id}a"), format!("gp{id}b")],
        };
        let [here, there] = &pair.namespaces;
        let [a, b] = &pair.interfaces;
        for name in [here, there] {
            ip(&["netns", "add", name])?;
        }
        ip(&[
            "link", "add", a, "netns", here, "type", "veth", "peer", "name", b, "netns", there,
        ])?;
        for (name, interface) in [(here, a), (there, b)] {
            ip(&["-n", name, "link", "set", interface, "up"])?;
        }
        Ok(pair)
    }
}

impl Drop for VethPair {
    fn drop(&mut self) {
        for name in &self.namespaces {
            // The interfaces go with them. What was never made is not there.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("no `ip` (Debian: iproute2)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`ip {}`: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", "../../proc/1/ns/net", "a/b", "a b"] {
            let error = enter(bad).unwrap_err().to_string();
            assert!(error.contains("is no name"), "{bad}: {error}");
        }
        assert!(enter("genie-perf-no-such").is_err());
    }
}
