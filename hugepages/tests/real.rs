//! This machine's own huge pages, a few of them, given back. Where that is not permitted or there
//! is no room, each test says why and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod turn;

use std::os::fd::AsFd;
use std::time::Duration;

use genie_hugepages::{
    Backing, Inventory, Kind, MapRequest, NodeId, Region, Reservation, Root, map, mount,
};
use turn::{PAGE, alone, inventory};

const PAGES: u64 = 4;
const BYTES: usize = 8 << 20;

/// The pages beyond which there is nothing to test, or none with the reason printed.
fn reserved(node: Option<NodeId>) -> Option<Reservation> {
    turn::reserved(PAGES, node)
}

/// The pools are as they were; another program's own coming and going is waited out.
fn assert_found_again(found: &Inventory) {
    for _ in 0..200 {
        if inventory().pools == found.pools {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(inventory().pools, found.pools);
}

/// Every page of a region takes bytes and gives them back.
fn touch(region: &mut Region) {
    let len = region.len();
    for offset in (0..len).step_by(4096).chain([len - 8]) {
        region.write_at(offset, &offset.to_le_bytes()).unwrap();
    }
    for offset in (0..len - 8).step_by(4096) {
        let mut bytes = [0; 8];
        region.read_at(offset, &mut bytes).unwrap();
        assert_eq!(bytes, offset.to_le_bytes());
    }
}

#[test]
fn pages_are_reserved_mapped_on_their_node_touched_and_given_back() {
    let _alone = alone();
    let found = inventory();
    let node = found.pools.iter().find_map(|pool| pool.node);
    let Some(reservation) = reserved(node) else {
        return;
    };
    assert_eq!(reservation.added_pages(), PAGES);
    let mut request = MapRequest::new(BYTES - 5).page(PAGE).huge_only().locked();
    if let Some(node) = node {
        request = request.node(node);
    }
    let free = inventory().usable(PAGE, None);
    let mut region = map(&Root::system(), &request).unwrap();
    assert_eq!(region.kind(), Kind::HugeMemfd(PAGE));
    assert_eq!((region.len(), region.is_locked()), (BYTES, true));
    assert_eq!(region.address().addr() % (2 << 20), 0);
    assert_eq!(
        inventory().usable(PAGE, None),
        free - PAGES,
        "all are there"
    );
    assert_eq!(region.node(), node);
    for offset in [0, BYTES - 1] {
        assert_eq!(region.node_at(offset), node);
    }
    touch(&mut region);

    let fd = region.as_fd().try_clone_to_owned().unwrap();
    let other = Region::attach(fd, BYTES).unwrap();
    assert_eq!(other.kind(), Kind::HugeMemfd(PAGE));
    let mut bytes = [0; 8];
    other.read_at(4096, &mut bytes).unwrap();
    assert_eq!(bytes, 4096_u64.to_le_bytes());

    drop((region, other));
    reservation.restore().unwrap();
    assert_found_again(&found);
}

#[test]
fn pages_that_come_too_late_are_an_error_and_free_again() {
    let _alone = alone();
    let Some(_reservation) = reserved(None) else {
        return;
    };
    let free = inventory().usable(PAGE, None);
    let request = MapRequest::new(BYTES).page(PAGE).huge_only();
    assert!(request.available(&Root::system()).is_ok());
    let late = request.within(Duration::ZERO);
    let error = map(&Root::system(), &late).unwrap_err().to_string();
    assert!(error.contains("only 2 were cleared within 0ns"), "{error}");
    assert_eq!(inventory().usable(PAGE, None), free);
    let too_many = MapRequest::new((free as usize + 1) << 21).page(PAGE);
    let overcommit = inventory().size(PAGE).unwrap().overcommit;
    assert_eq!(too_many.available(&Root::system()).is_ok(), overcommit > 0);
}

#[test]
fn pages_given_back_while_mapped_leave_with_their_mapping() {
    let _alone = alone();
    let found = inventory();
    let Some(reservation) = reserved(None) else {
        return;
    };
    let usable = usize::try_from(inventory().usable(PAGE, None)).unwrap();
    let all = MapRequest::new(usable * (2 << 20)).page(PAGE).huge_only();
    let free = || -> u64 { inventory().pools_of(PAGE, None).map(|pool| pool.free).sum() };
    let free_before = free();
    let mut region = map(&Root::system(), &all).unwrap();
    let taken = free_before - free();
    assert_eq!(taken, usable as u64, "there and not only promised");
    drop(reservation);
    touch(&mut region);
    drop(region);
    assert_found_again(&found);
}

#[test]
fn a_hugetlbfs_is_mounted_mapped_from_and_unmounted() {
    let _alone = alone();
    let found = inventory();
    let Some(_reservation) = reserved(None) else {
        return;
    };
    let name = format!("genie-hugepages-mount-{}", std::process::id());
    let folder = std::env::temp_dir().canonicalize().unwrap().join(name);
    let mounted = match mount::mount(&Root::system(), &folder, PAGE) {
        Ok(mounted) => mounted,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let there = inventory();
    assert!(there.mounts.iter().any(|mount| mount.path == folder));
    assert!(there.mount_of(PAGE).is_some());
    let backing = Backing::Hugetlbfs(folder.clone());
    let request = MapRequest::new(BYTES)
        .page(PAGE)
        .huge_only()
        .backing(backing);
    let mut region = map(&Root::system(), &request).unwrap();
    assert_eq!(region.kind(), Kind::HugeFile(PAGE));
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        0,
        "it has no name"
    );
    touch(&mut region);
    drop(region);
    mounted.unmount().unwrap();
    assert!(!folder.exists());
    assert_eq!(inventory().mounts, found.mounts);
}

#[test]
fn a_folder_that_is_no_hugetlbfs_is_refused_and_left_clean() {
    let _alone = alone();
    let Some(_reservation) = reserved(None) else {
        return;
    };
    let name = format!("genie-hugepages-plain-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).unwrap();
    let backing = Backing::Hugetlbfs(folder.clone());
    let request = MapRequest::new(1).page(PAGE).huge_only().backing(backing);
    let error = map(&Root::system(), &request).unwrap_err();
    assert!(error.to_string().contains("mount -t hugetlbfs"), "{error}");
    std::fs::remove_dir(&folder).expect("nothing was left there");
}
