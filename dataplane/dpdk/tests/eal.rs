//! Starting, stopping, and what bad input gets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use genie_dpdk::{
    AfPacket, AfXdp, Eal, EalArgs, EalError, EalOptions, Lcore, LcoreError, Memif, MemifRole,
    Mempool, MempoolConfig, MempoolError, Mtu, PciAddress, Port, PortAddress, PortConfig,
    PortError, Vdev, allowed_cores,
};

#[test]
fn it_starts_once() {
    let Some(turn) = common::eal() else { return };
    assert!(turn.eal.version().starts_with("DPDK "));
    let again = Eal::start(EalOptions::anywhere(64).validate().unwrap());
    assert_eq!(again.unwrap_err(), EalError::AlreadyStarted);
}

#[test]
fn without_dpdk_it_says_so() {
    let Err(reason) = genie_dpdk::is_built() else {
        return;
    };
    let error = Eal::start(EalOptions::anywhere(64).validate().unwrap()).unwrap_err();
    assert!(matches!(error, EalError::Load(_)));
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn malformed_arguments_never_reach_it() {
    for words in [
        &["--vdev"][..],
        &["-m", "-1"],
        &["-l", "x"],
        &["--proc-type=secondary"],
    ] {
        assert!(EalArgs::parse(words.iter().copied()).is_err(), "{words:?}");
    }
}

#[test]
fn no_hugepages_is_an_error_of_its_own() {
    if genie_dpdk::is_built().is_err() {
        return eprintln!("skipped: built without DPDK");
    }
    let free = std::fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten();
    let any = free
        .flat_map(|size| ["free_hugepages", "nr_overcommit_hugepages"].map(|f| size.path().join(f)))
        .any(|file| std::fs::read_to_string(file).is_ok_and(|count| count.trim() != "0"));
    if any {
        return eprintln!("skipped: this host has hugepages");
    }
    match Eal::start(EalOptions::default().validate().unwrap()) {
        Err(EalError::Load(reason)) => eprintln!("skipped: {reason}"),
        other => assert_eq!(other.unwrap_err(), EalError::NoHugepages),
    }
}

fn refused(eal: &Eal, pool: &Mempool, address: impl Into<PortAddress>) -> PortError {
    Port::open(eal, &address.into(), &PortConfig::default(), pool).unwrap_err()
}

#[test]
fn a_port_that_is_not_there_is_an_error() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "absent", 255, 2048);
    let pci: PciAddress = "ffff:fe:1f.7".parse().unwrap();
    let error = refused(&turn.eal, &pool, pci);
    assert_eq!(error, PortError::NoPciDevice { address: pci });
    for vdev in [
        Vdev::AfPacket(AfPacket::new("genie-absent0")),
        Vdev::AfXdp(AfXdp::new("genie-absent0")),
    ] {
        let error = refused(&turn.eal, &pool, vdev);
        let interface = "genie-absent0".to_owned();
        assert_eq!(error, PortError::NoInterface { interface });
    }
    let memif = Vdev::Memif(Memif::new(MemifRole::Server, "not/absolute"));
    assert!(matches!(
        refused(&turn.eal, &pool, memif),
        PortError::Vdev(_)
    ));
}

#[test]
fn more_queues_or_mtu_than_there_are_is_an_error() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "limits", 255, 2048);
    let open = |config: PortConfig| Port::open(&turn.eal, &Vdev::Ring.into(), &config, &pool);
    let many = PortConfig {
        rx_queues: 500,
        ..PortConfig::default()
    };
    assert!(matches!(
        open(many),
        Err(PortError::Queues { asked: 500, .. })
    ));
    let tiny = PortConfig {
        mtu: Mtu::Exactly(1),
        ..PortConfig::default()
    };
    assert!(matches!(open(tiny), Err(PortError::Mtu { asked: 1, .. })));
    assert!(
        open(PortConfig::default()).is_ok(),
        "a refused device can be opened afterwards"
    );
}

#[test]
fn pools_that_cannot_be_are_errors() {
    let Some(turn) = common::eal() else { return };
    let make = |config| Mempool::new(&turn.eal, config).unwrap_err();
    let _first = common::pool(&turn.eal, "twice", 63, 256);
    let twice = make(MempoolConfig::new("twice", 63, 256));
    assert_eq!(twice, MempoolError::NameTaken("twice".into()));
    let vast = make(MempoolConfig::new("vast", 1 << 24, 60000));
    assert!(matches!(vast, MempoolError::NoMemory(_)), "{vast:?}");
}

#[test]
fn a_thread_becomes_an_lcore_and_ceases_to_be_one() {
    let Some(turn) = common::eal() else { return };
    let eal = turn.eal.clone();
    let work = move || {
        let before = allowed_cores();
        let last = *before.last().unwrap();
        let lcore = Lcore::claim(&eal, last).unwrap();
        assert_eq!(allowed_cores(), [last]);
        assert_eq!(lcore.core(), Some(last));
        assert_eq!(Lcore::claim(&eal, last).unwrap_err(), LcoreError::Already);
        let id = lcore.id();
        drop(lcore);
        assert_eq!(allowed_cores(), before);
        let again = Lcore::claim(&eal, last).unwrap();
        assert_eq!(again.id(), id, "the number was given back");
    };
    std::thread::spawn(work).join().unwrap();
}

#[test]
fn a_thread_is_kept_on_some_cores_and_let_go() {
    let Some(turn) = common::eal() else { return };
    let eal = turn.eal.clone();
    let work = move || {
        let before = allowed_cores();
        let lcore = Lcore::within(&eal, &before).unwrap();
        assert_eq!(allowed_cores(), before);
        assert_eq!(lcore.core().is_some(), before.len() == 1);
        drop(lcore);
        let lcore = Lcore::within(&eal, &before[1..]);
        match before.len() {
            // No core at all is nowhere to run.
            1 => assert!(matches!(lcore, Err(LcoreError::Pin { .. }))),
            _ => assert_eq!(allowed_cores(), before[1..]),
        }
        drop(lcore);
        assert_eq!(allowed_cores(), before);
        assert!(matches!(
            Lcore::within(&eal, &[]),
            Err(LcoreError::Pin { .. })
        ));
        assert_eq!(allowed_cores(), before);
    };
    std::thread::spawn(work).join().unwrap();
}

/// What DPDK makes of a node is not to be seen on a machine that has one, and on ordinary pages.
#[test]
fn a_pool_is_made_on_a_node_and_what_is_no_card_has_none() {
    let Some(turn) = common::eal() else { return };
    let config = MempoolConfig {
        numa_node: Some(0),
        ..MempoolConfig::new("near", 63, 2048)
    };
    let pool = Mempool::new(&turn.eal, config).unwrap();
    assert_eq!(pool.available(), 63);
    let attached = Port::attach(&turn.eal, &Vdev::Ring.into()).unwrap();
    assert_eq!(attached.numa_node(), None);
    let opened = attached.open(&PortConfig::default(), &pool).unwrap();
    drop(opened);
    // One that is found and not opened leaves nothing behind.
    for _ in 0..40 {
        Port::attach(&turn.eal, &Vdev::Ring.into()).unwrap();
    }
    assert!(Port::open(&turn.eal, &Vdev::Ring.into(), &PortConfig::default(), &pool).is_ok());
}
