use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

fn pair(capacity: u64, policy: WaitPolicy) -> (RingProducer, RingConsumer) {
    let consumer = RingConsumer::create(capacity, policy).unwrap();
    let file = consumer.file().try_clone_to_owned().unwrap();
    let memory = Arc::new(Mapping::from_peer(file).unwrap());
    (RingProducer::open(memory).unwrap(), consumer)
}

proptest! {
    #[test]
    fn agrees_with_a_queue(
        steps in prop::collection::vec((any::<bool>(), 0_usize..2040, any::<u8>()), 1..400),
    ) {
        let (mut producer, mut consumer) = pair(4096, WaitPolicy::SLEEP);
        let mut oracle: VecDeque<Vec<u8>> = VecDeque::new();
        let mut used = 0;
        let mut frame = Vec::new();
        for (push, len, byte) in steps {
            let size = |len: usize| 8 + len.next_multiple_of(8);
            if push {
                let bytes = vec![byte; len];
                let (front, back) = bytes.split_at(len / 3);
                let fits = used + size(len) <= 4096;
                prop_assert_eq!(producer.try_push(&[front, back]).unwrap(), fits);
                if fits {
                    used += size(len);
                    oracle.push_back(bytes);
                }
            } else {
                let came = consumer.try_pop(&mut frame).unwrap();
                let wanted = oracle.pop_front();
                prop_assert_eq!(came, wanted.is_some());
                if let Some(wanted) = wanted {
                    used -= size(wanted.len());
                    prop_assert_eq!(&frame, &wanted);
                }
            }
        }
    }

    #[test]
    fn no_cursor_or_length_from_the_other_side_does_harm(
        head in any::<u64>(),
        small in 0_u64..9000,
        use_small in any::<bool>(),
        prefix in any::<u64>(),
    ) {
        let head = if use_small { small } else { head };
        let (producer, mut consumer) = pair(4096, WaitPolicy::SLEEP);
        producer.shared.put(0, &prefix.to_le_bytes()).unwrap();
        producer.shared.word64(HEAD_AT).store(head, Ordering::SeqCst);
        let mut frame = Vec::new();
        for _ in 0..4 {
            match consumer.try_pop(&mut frame) {
                Ok(true) => prop_assert!(frame.len() <= 2048),
                Ok(false) => {}
                Err(RingError::Corrupt(_)) => {
                    let bad_head = !head.is_multiple_of(8) || head > 4096;
                    prop_assert!(bad_head || prefix > 0);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}

#[test]
fn a_hostile_consumer_is_found_out() {
    for tail in [1, 8, !7_u64] {
        let (mut producer, consumer) = pair(4096, WaitPolicy::SLEEP);
        consumer
            .shared
            .word64(TAIL_AT)
            .store(tail.wrapping_add(1 << 20), Ordering::SeqCst);
        let mut result = Ok(true);
        for _ in 0..4 {
            result = producer.try_push(&[&[0; 2000]]);
            if result.is_err() {
                break;
            }
        }
        assert!(matches!(result, Err(RingError::Corrupt(_))), "{result:?}");
    }
}

#[test]
fn two_threads_see_every_frame_once_and_in_order() {
    for (capacity, spin) in [(4096, 0), (4096, 20), (1 << 20, 20)] {
        let policy = WaitPolicy {
            spin_max: Duration::from_micros(spin),
        };
        let (mut producer, mut consumer) = pair(capacity, policy);
        let sender = std::thread::spawn(move || {
            for number in 0_u64..20_000 {
                let tail = vec![number as u8; (number % 300) as usize];
                producer.push(&[&number.to_le_bytes(), &tail]).unwrap();
            }
            producer.stats()
        });
        let mut frame = Vec::new();
        for number in 0_u64..20_000 {
            consumer.pop(&mut frame).unwrap();
            assert_eq!(frame[..8], number.to_le_bytes());
            assert_eq!(frame.len() as u64, 8 + number % 300);
            assert!(frame[8..].iter().all(|&byte| byte == number as u8));
        }
        let sent = sender.join().unwrap();
        assert_eq!(sent.frames, 20_000);
        // Nobody is woken who did not ask for it.
        assert!(sent.wakes <= consumer.stats().sleeps);
        assert!(matches!(consumer.pop(&mut frame), Err(RingError::Closed)));
    }
}

#[test]
fn a_busy_consumer_costs_no_wake() {
    let (mut producer, mut consumer) = pair(1 << 16, WaitPolicy::SLEEP);
    let mut frame = Vec::new();
    for _ in 0..1000 {
        producer.push(&[b"frame"]).unwrap();
        consumer.pop(&mut frame).unwrap();
    }
    assert_eq!(producer.stats().wakes, 0);
    assert_eq!(consumer.stats().sleeps, 0);
}

#[test]
fn waiting_ends_at_the_deadline_and_at_the_close() {
    let (mut producer, mut consumer) = pair(4096, WaitPolicy::default());
    let mut frame = Vec::new();
    let started = Instant::now();
    assert!(
        !consumer
            .pop_timeout(&mut frame, Duration::from_millis(20))
            .unwrap()
    );
    assert!(started.elapsed() >= Duration::from_millis(20));
    producer.push(&[&[1; 2000]]).unwrap();
    producer.push(&[&[2; 2000]]).unwrap();
    assert!(
        !producer
            .push_timeout(&[&[3; 2000]], Duration::from_millis(20))
            .unwrap()
    );
    let closer = consumer.closer();
    let waiter = std::thread::spawn(move || producer.push(&[&[3; 2000]]));
    std::thread::sleep(Duration::from_millis(20));
    closer.close();
    assert!(matches!(waiter.join().unwrap(), Err(RingError::Closed)));
    // What was in it can still be taken out.
    consumer.pop(&mut frame).unwrap();
    consumer.pop(&mut frame).unwrap();
    assert_eq!(frame, [2; 2000]);
    assert!(matches!(consumer.pop(&mut frame), Err(RingError::Closed)));
}

#[test]
fn frames_that_can_never_fit_are_refused() {
    let (mut producer, _consumer) = pair(4096, WaitPolicy::SLEEP);
    assert!(
        producer
            .push(&[&vec![0; producer.frame_max() as usize]])
            .is_ok()
    );
    assert!(matches!(
        producer.push(&[&[0; 4096]]),
        Err(RingError::TooLong { .. })
    ));
}

#[derive(Debug, Default)]
struct Counted(std::sync::atomic::AtomicU64);

impl Bell for Counted {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_bell_rings_only_for_a_consumer_that_sleeps() {
    let (mut producer, mut consumer) = pair(4096, WaitPolicy::SLEEP);
    let bell = Arc::new(Counted::default());
    producer.set_bell(Arc::clone(&bell) as _);
    let rung = || bell.0.load(Ordering::SeqCst);
    let mut frame = Vec::new();
    producer.push(&[b"awake"]).unwrap();
    assert!(!consumer.arm(), "a frame is there");
    producer.push(&[b"still awake"]).unwrap();
    assert_eq!(rung(), 0);
    consumer.pop(&mut frame).unwrap();
    consumer.pop(&mut frame).unwrap();
    assert!(consumer.arm());
    producer.push(&[b"wake up"]).unwrap();
    producer.push(&[b"once"]).unwrap();
    assert_eq!((rung(), producer.stats().wakes), (1, 1));
    consumer.pop(&mut frame).unwrap();
    consumer.pop(&mut frame).unwrap();
    assert!(consumer.arm());
    consumer.disarm();
    producer.push(&[b"disarmed"]).unwrap();
    assert_eq!(rung(), 1);
    consumer.pop(&mut frame).unwrap();
    assert!(consumer.arm());
    drop(producer);
    assert_eq!(rung(), 2, "closing wakes");
    assert!(!consumer.arm(), "closed");
}

#[test]
fn a_bell_rings_for_a_producer_that_waits_for_room() {
    let (mut producer, mut consumer) = pair(4096, WaitPolicy::SLEEP);
    let bell = Arc::new(Counted::default());
    consumer.set_bell(Arc::clone(&bell) as _);
    let rung = || bell.0.load(Ordering::SeqCst);
    assert_eq!(producer.room().unwrap(), Some(producer.frame_max()));
    let mut frame = Vec::new();
    for _ in 0..2 {
        assert!(!producer.arm(2000), "there is room");
        assert!(producer.try_push(&[&[1; 2000]]).unwrap());
    }
    assert_eq!(producer.room().unwrap(), Some(4096 - 2 * 2008 - 8));
    assert!(!producer.arm(72));
    assert!(producer.arm(2000));
    consumer.pop(&mut frame).unwrap();
    consumer.pop(&mut frame).unwrap();
    assert_eq!(rung(), 1);
    assert!(!producer.arm(2000));
    assert_eq!(rung(), 1);
}
