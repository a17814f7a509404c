//! Who owns a packet, and that none is lost or freed twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

mod common;

use genie_dpdk::{
    Burst, Lcore, MbufError, Mempool, MempoolError, Null, OpenPort, Port, PortConfig, Vdev,
    allowed_cores,
};

/// A burst of packets that each hold their number.
fn numbered(pool: &Mempool, first: u32, count: usize) -> Burst {
    let mut burst = Burst::new();
    pool.alloc_into(&mut burst, count).unwrap();
    for (number, mbuf) in (first..).zip(burst.as_mut_slice()) {
        mbuf.extend_from_slice(&number.to_le_bytes()).unwrap();
        mbuf.append(60).unwrap().fill(number as u8);
    }
    burst
}

#[test]
fn an_empty_pool_is_an_error_and_drops_refill_it() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "empty", 100, 2048);
    assert_eq!((pool.available(), pool.in_use()), (100, 0));
    let mut held: Vec<_> = (0..100).map(|_| pool.alloc().unwrap()).collect();
    assert_eq!(pool.available(), 0);
    assert_eq!(
        pool.alloc().unwrap_err(),
        MempoolError::Exhausted { asked: 1 }
    );
    held.truncate(90);
    let mut burst = Burst::new();
    let error = pool.alloc_into(&mut burst, 11).unwrap_err();
    assert_eq!(error, MempoolError::Exhausted { asked: 11 });
    assert_eq!((burst.len(), pool.available()), (0, 10), "all or none");
    pool.alloc_into(&mut burst, 10).unwrap();
    let error = pool.alloc_into(&mut burst, 55).unwrap_err();
    assert_eq!(
        error,
        MempoolError::BurstFull {
            asked: 55,
            room: 54
        }
    );
    drop((held, burst));
    assert_eq!(pool.available(), 100);
}

#[test]
fn packets_on_an_lcore_come_home_by_its_cache() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "cached", 2047, 256);
    let (eal, theirs) = (turn.eal.clone(), pool.clone());
    let work = move || {
        let _lcore = Lcore::claim(&eal, allowed_cores()[0]).unwrap();
        for _ in 0..100 {
            let mut burst = Burst::new();
            theirs.alloc_into(&mut burst, 32).unwrap();
            assert_eq!(theirs.in_use(), 32);
        }
        theirs.alloc().unwrap()
    };
    let traveller = std::thread::spawn(work).join().unwrap();
    assert_eq!(pool.in_use(), 1);
    drop(traveller);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn data_is_added_and_taken_within_the_buffer() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "data", 63, 256);
    let mut mbuf = pool.alloc().unwrap();
    assert!(mbuf.is_empty());
    assert_eq!((mbuf.tailroom(), mbuf.headroom()), (256, 128));
    mbuf.extend_from_slice(b"payload").unwrap();
    mbuf.prepend(4).unwrap().copy_from_slice(b"head");
    assert_eq!(mbuf.data(), b"headpayload");
    mbuf.advance(2).unwrap();
    mbuf.truncate(4).unwrap();
    assert_eq!(mbuf.data(), b"adpa");
    let error = mbuf.append(300).unwrap_err();
    assert!(matches!(error, MbufError::NoTailroom { asked: 300, .. }));
    assert!(matches!(
        mbuf.prepend(200),
        Err(MbufError::NoHeadroom { .. })
    ));
    assert_eq!(
        mbuf.advance(5),
        Err(MbufError::TooShort { asked: 5, bytes: 4 })
    );
    assert_eq!(
        mbuf.truncate(5),
        Err(MbufError::TooShort { asked: 5, bytes: 4 })
    );
    mbuf.append(mbuf.tailroom()).unwrap();
    assert_eq!((mbuf.tailroom(), mbuf.data().len()), (0, 256 + 2));
}

#[test]
fn chained_packets_are_one_packet() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "chain", 127, 256);
    let mut packet = pool.alloc().unwrap();
    packet.extend_from_slice(b"header").unwrap();
    for part in ["one", "two"] {
        let mut mbuf = pool.alloc().unwrap();
        mbuf.extend_from_slice(part.as_bytes()).unwrap();
        packet.chain(mbuf).unwrap();
    }
    assert_eq!((packet.len(), packet.segment_count()), (12, 3));
    assert_eq!(
        packet.segments().collect::<Vec<_>>(),
        [&b"header"[..], b"one", b"two"]
    );
    assert_eq!(packet.append(1), Err(MbufError::Segmented));
    for _ in 3..64 {
        packet.chain(pool.alloc().unwrap()).unwrap();
    }
    let refused = packet.chain(pool.alloc().unwrap());
    assert!(refused.is_err(), "a limit on everything");
    drop(refused);
    assert_eq!(pool.in_use(), 64);
    drop(packet);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_ring_gives_back_what_was_sent_in_order() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "loop", 1023, 256);
    let opened = Port::open(&turn.eal, &Vdev::Ring.into(), &PortConfig::default(), &pool);
    let OpenPort {
        port,
        mut rx,
        mut tx,
    } = opened.unwrap();
    assert!(port.link().unwrap().up);
    let (mut sent, mut seen) = (0, 0);
    let mut incoming = Burst::new();
    while seen < 5000 {
        let mut burst = numbered(&pool, sent, 32);
        sent += tx[0].send(&mut burst) as u32;
        // The rest of the burst, if any, is freed here.
        rx[0].receive(&mut incoming);
        for mbuf in incoming.drain() {
            assert_eq!(mbuf.data()[..4], u32::to_le_bytes(seen));
            assert_eq!(mbuf.data()[4..], [seen as u8; 60]);
            seen += 1;
        }
    }
    while rx[0].receive(&mut incoming) > 0 {
        seen += incoming.drain().count() as u32;
    }
    assert_eq!((sent, pool.in_use()), (seen, 0));
    let stats = port.stats().unwrap();
    assert_eq!(
        (stats.tx_packets, stats.rx_packets),
        (sent.into(), seen.into())
    );
}

#[test]
fn only_the_unsent_tail_of_a_burst_is_freed() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "full", 4095, 128);
    let opened = Port::open(&turn.eal, &Vdev::Ring.into(), &PortConfig::default(), &pool);
    let OpenPort {
        port,
        mut rx,
        mut tx,
    } = opened.unwrap();
    let (mut sent, mut partial) = (0_u32, false);
    loop {
        let mut burst = numbered(&pool, sent, 48);
        let taken = tx[0].send(&mut burst);
        assert_eq!(burst.len(), 48 - taken);
        sent += taken as u32;
        partial |= (1..48).contains(&taken);
        if taken == 0 {
            // The packet that would be next is still ours, unharmed.
            assert_eq!(burst.as_slice()[0].data()[..4], sent.to_le_bytes());
            break;
        }
        if taken < 48 {
            let first = burst.pop().unwrap();
            assert_eq!(first.data()[..4], sent.to_le_bytes());
        }
        assert!(sent < 4000, "the ring never fills");
    }
    assert!(partial, "a ring of 2^n - 1 takes part of a burst of 48");
    assert_eq!(
        pool.in_use(),
        sent,
        "the ring has what was sent, nobody the rest"
    );
    let (mut burst, mut seen) = (Burst::new(), 0_u32);
    while rx[0].receive(&mut burst) > 0 {
        for mbuf in burst.drain() {
            assert_eq!(
                mbuf.data()[..4],
                seen.to_le_bytes(),
                "freed while the driver had it"
            );
            seen += 1;
        }
    }
    assert_eq!((seen, pool.in_use()), (sent, 0));
    drop((port, rx, tx));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_sink_gives_every_packet_back_to_its_pool() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "sink", 1023, 256);
    let null = Vdev::Null(Null {
        packet_bytes: 64,
        sink_only: true,
    });
    let opened = Port::open(&turn.eal, &null.into(), &PortConfig::default(), &pool);
    let OpenPort { mut rx, mut tx, .. } = opened.unwrap();
    for round in 0..200 {
        let mut burst = numbered(&pool, round, 64);
        assert_eq!(tx[0].send(&mut burst), 64);
        assert_eq!(burst.pop().map(|mbuf| mbuf.len()), None);
    }
    assert_eq!(rx[0].receive(&mut Burst::new()), 0);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_source_stops_where_the_pool_ends() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "source", 50, 256);
    let null = Vdev::Null(Null {
        packet_bytes: 64,
        sink_only: false,
    });
    let opened = Port::open(&turn.eal, &null.into(), &PortConfig::default(), &pool);
    let OpenPort { port, mut rx, .. } = opened.unwrap();
    let mut burst = Burst::new();
    assert_eq!(rx[0].receive(&mut burst), 32);
    assert_eq!(rx[0].receive(&mut burst), 0, "18 left: none of 32");
    assert_eq!(burst.drain().map(|mbuf| mbuf.len()).sum::<usize>(), 32 * 64);
    drop((port, rx));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_dropped_pool_does_not_take_packets_with_it() {
    let Some(turn) = common::eal() else { return };
    let pool = common::pool(&turn.eal, "outlived", 63, 256);
    let mut mbuf = pool.alloc().unwrap();
    drop(pool);
    mbuf.extend_from_slice(b"still here").unwrap();
    assert_eq!(mbuf.data(), b"still here");
    drop(mbuf);
    // A pool that was complete is gone, and its name free.
    drop(common::pool(&turn.eal, "reused", 63, 256));
    drop(common::pool(&turn.eal, "reused", 63, 256));
}
