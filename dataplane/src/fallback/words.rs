//! What a person is told.

use std::time::Duration;

use genie_dpdk::EalError;

/// Why DPDK is not there, and what has to be done where that does not mend itself.
pub(super) fn no_dpdk(error: &EalError) -> String {
    let restart = match error.is_final() {
        true => "; DPDK starts only once in a process, so restart the daemon to try again",
        false => "",
    };
    format!("no DPDK: {error}{restart}")
}

/// What a connection to the node costs either way, where that was measured.
pub(super) fn describe(costs: [Option<Duration>; 2]) -> String {
    match costs {
        [Some(dpdk), Some(tcp)] => format!(
            " (a connection to the node takes {} us by DPDK, {} us by TCP)",
            dpdk.as_micros(),
            tcp.as_micros()
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_restart_the_daemon_is_told_so_and_nobody_else() {
        for (error, is_final) in [
            (EalError::HugepagesTaken, true),
            (EalError::NoMemory, true),
            (EalError::NoPermission, true),
            (EalError::NoHugepages, false),
            (EalError::HugepagesNotMounted, false),
        ] {
            let reason = no_dpdk(&error);
            assert!(reason.contains(&error.to_string()), "{reason}");
            assert_eq!(reason.contains("restart the daemon"), is_final, "{reason}");
        }
    }
}
