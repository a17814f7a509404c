//! Transfers over a software link into device memory, by both ways, every byte compared.

mod common;

use genie_gpudev::device::HostDevice;
use genie_gpudev::receive::Way;
use genie_gpudev_dpdk::check::{LinkCheck, LinkReport, over_link};

fn run(check: LinkCheck) -> Option<LinkReport> {
    let turn = common::eal()?;
    let report = over_link(&turn.eal, &HostDevice::new(0), check).unwrap();
    println!("{report:?}");
    assert_eq!(report.bytes, check.transfers << 20);
    assert!(!report.card_played);
    Some(report)
}

fn check(way: Way) -> LinkCheck {
    LinkCheck {
        way,
        sealed: false,
        transfers: 32,
        corrupt_every: 0,
    }
}

#[test]
fn staged_data_is_copied_into_place() {
    let Some(report) = run(check(Way::Staged)) else {
        return;
    };
    assert_eq!((report.corrupt, report.way.as_str()), (0, "staged"));
}

#[test]
fn staged_data_may_be_sealed() {
    let sealed = LinkCheck {
        sealed: true,
        ..check(Way::Staged)
    };
    let Some(report) = run(sealed) else { return };
    assert!(report.sealed);
}

#[test]
fn direct_data_is_gathered_into_place() {
    let Some(report) = run(check(Way::Direct)) else {
        return;
    };
    assert_eq!((report.corrupt, report.way.as_str()), (0, "direct"));
}

#[test]
fn damaged_data_is_dropped_and_comes_again() {
    let damaged = LinkCheck {
        corrupt_every: 50,
        ..check(Way::Direct)
    };
    let Some(report) = run(damaged) else { return };
    assert!(report.damaged > 0 && report.corrupt > 0, "{report:?}");
    let Some(report) = run(LinkCheck {
        way: Way::Staged,
        ..damaged
    }) else {
        return;
    };
    // The CPU had checked these before they were staged.
    assert!(report.damaged > 0 && report.corrupt == 0, "{report:?}");
}

#[test]
fn sealed_data_can_not_be_gathered() {
    let Some(turn) = common::eal() else { return };
    let sealed = LinkCheck {
        sealed: true,
        ..check(Way::Direct)
    };
    let refused = over_link(&turn.eal, &HostDevice::new(0), sealed).unwrap_err();
    assert!(refused.to_string().contains("staged"));
}
