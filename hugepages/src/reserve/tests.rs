use std::io;
use std::path::Path;

use super::*;
use crate::testing::Fake;

const NODE_0: &str = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
const NODE_1: &str = "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages";

fn two_nodes() -> Fake {
    let fake = Fake::new();
    fake.pool(None, 2048, 6, 3);
    fake.pool(Some(0), 2048, 4, 2);
    fake.pool(Some(1), 2048, 2, 1);
    fake
}

fn request(pages: u64, node: Option<u16>) -> ReserveRequest {
    ReserveRequest {
        page: PageSize::MIB_2,
        pages,
        node: node.and_then(NodeId::new),
    }
}

#[test]
fn what_is_missing_is_added_evenly_and_given_back() {
    let fake = two_nodes();
    let reservation = reserve(&fake.root(), &request(13, None)).unwrap();
    assert_eq!((reservation.added_pages(), reservation.short()), (10, 0));
    assert_eq!(
        (fake.text(NODE_0), fake.text(NODE_1)),
        ("9".into(), "7".into())
    );
    drop(reservation);
    assert_eq!(
        (fake.text(NODE_0), fake.text(NODE_1)),
        ("4".into(), "2".into())
    );
}

#[test]
fn another_programs_pages_are_not_taken_away() {
    let fake = two_nodes();
    let first = reserve(&fake.root(), &request(5, Some(0))).unwrap();
    assert_eq!(fake.text(NODE_0), "7");
    fake.file(NODE_0, "17");
    first.restore().unwrap();
    assert_eq!(fake.text(NODE_0), "14");
}

#[test]
fn kept_pages_stay_and_what_is_free_is_not_added_again() {
    let fake = two_nodes();
    let kept = reserve(&fake.root(), &request(4, Some(1))).unwrap().keep();
    assert_eq!(
        kept.first().map(|added| (added.before, added.pages)),
        Some((2, 3))
    );
    assert_eq!(fake.text(NODE_1), "5");
    let none = reserve(&fake.root(), &request(1, Some(1))).unwrap();
    assert_eq!((none.added().len(), none.short()), (0, 0));
}

#[test]
fn a_node_that_gives_less_is_made_up_for_by_the_other() {
    let fake = two_nodes();
    let plan = Plan::new(
        &fake.root(),
        &Inventory::read(&fake.root()).unwrap(),
        &request(13, None),
    );
    let mean = &mut |path: &Path, pages: u64| -> io::Result<()> {
        let most = if path.to_string_lossy().contains("node0") {
            5
        } else {
            8
        };
        files::write(path, pages.min(most))
    };
    let reservation = reserve_with(plan.unwrap(), mean).unwrap();
    let pages: Vec<_> = reservation
        .added()
        .iter()
        .map(|added| added.pages)
        .collect();
    assert_eq!((pages, reservation.short()), (vec![1, 6], 3));
    reservation.restore().unwrap();
    assert_eq!(
        (fake.text(NODE_0), fake.text(NODE_1)),
        ("4".into(), "2".into())
    );
}

#[test]
fn a_refusal_midway_gives_back_what_was_added() {
    let fake = two_nodes();
    let found = Inventory::read(&fake.root()).unwrap();
    let plan = Plan::new(&fake.root(), &found, &request(13, None)).unwrap();
    let refuse = &mut |path: &Path, pages: u64| match path.to_string_lossy().contains("node1") {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => files::write(path, pages),
    };
    let error = reserve_with(plan, refuse).unwrap_err();
    assert!(
        matches!(error, ReserveError::Denied { pages: 7, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("echo 7 > "), "{error}");
    assert_eq!(
        (fake.text(NODE_0), fake.text(NODE_1)),
        ("4".into(), "2".into())
    );
}

#[test]
fn the_machines_last_memory_is_withheld() {
    let fake = two_nodes();
    // 1600 MiB, of which 100 stay: 500 MiB hold 250 pages.
    fake.file(
        "proc/meminfo",
        "MemTotal: 1638400 kB\nMemAvailable: 614400 kB\n",
    );
    let found = Inventory::read(&fake.root()).unwrap();
    let plan = Plan::new(&fake.root(), &found, &request(u64::MAX, None)).unwrap();
    assert_eq!(plan.steps.iter().map(|step| step.add).sum::<u64>(), 250);
    assert_eq!(plan.withheld, u64::MAX - 3 - 250);
    fake.file(
        "sys/devices/system/node/node1/meminfo",
        "Node 1 MemTotal: 163840 kB\nNode 1 MemFree: 30720 kB\nNode 1 Active(file): 0 kB\n",
    );
    let plan = Plan::new(&fake.root(), &found, &request(103, None)).unwrap();
    let adds: Vec<_> = plan.steps.iter().map(|step| step.add).collect();
    assert_eq!(adds, [90, 10], "20 MiB on node 1 beside its sixteenth");
}

#[test]
fn an_absent_node_or_size_is_named() {
    let fake = two_nodes();
    let error = reserve(&fake.root(), &request(1, Some(7))).unwrap_err();
    assert!(matches!(error, ReserveError::NoSuchNode { .. }), "{error}");
    let mut large = request(1, None);
    large.page = PageSize::GIB_1;
    let error = reserve(&fake.root(), &large).unwrap_err();
    assert!(
        error.to_string().ends_with("no pages of 1GiB; it has 2MiB"),
        "{error}"
    );
}

#[test]
fn others_surplus_pages_are_no_gain_and_become_surplus_again() {
    let fake = two_nodes();
    // Node 0 has 4 pages, 3 of them surplus; the kernel makes those persistent first.
    let surplus = NODE_0.replace("nr_hugepages", "surplus_hugepages");
    fake.file(&surplus, "3");
    let found = Inventory::read(&fake.root()).unwrap();
    let plan = Plan::new(&fake.root(), &found, &request(4, Some(0))).unwrap();
    let kernel = &mut |path: &Path, pages: u64| {
        fake.file(&surplus, "0");
        files::write(path, pages)
    };
    let reservation = reserve_with(plan, kernel).unwrap();
    assert_eq!(
        (reservation.added_pages(), fake.text(NODE_0)),
        (2, "6".into())
    );
    reservation.restore().unwrap();
    assert_eq!(
        fake.text(NODE_0),
        "1",
        "the persistent pages that were found"
    );
}
