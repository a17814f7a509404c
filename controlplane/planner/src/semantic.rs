//! The first semantic rule: state that returns in every cycle stays where it is, and what reads or
//! writes it runs there. All else follows its bytes; and what makes as much as it takes runs where that
//! is wanted, if fewer bytes move then: a gradient is made where its parameter is.

use std::collections::BTreeMap;

use genie_session::places::Set;

use crate::segment::{self, Act, Plan, Record, STEPS_MAX, Segment, Storage};
use crate::{Device, Policy, Step, policy::Locality};

/// The places of a segment. `None` where there is no state to pin: then the place of each record is
/// better found when it comes.
#[must_use]
pub fn plan(segment: &Segment, devices: &[Device]) -> Option<Plan> {
    let homes: Vec<Option<usize>> = segment.storages.iter().map(|s| home(s, devices)).collect();
    let states = homes.iter().flatten().count();
    if states == 0 {
        return None;
    }
    let pins: Vec<Option<usize>> = (segment.records.iter())
        .map(|record| pin(record, segment, &homes))
        .collect();
    let mut places = follow_bytes(segment, &pins, devices);
    draw_where_it_is_wanted(segment, &mut places);
    let mut best = traffic(segment, &places);
    let nearer = make_where_it_is_wanted(segment, &pins, &places);
    let other = traffic(segment, &nearer);
    if other.1 < best.1 {
        (places, best) = (nearer, other);
    }
    Some(Plan {
        steps: steps(segment, &places),
        places,
        transfers: best.0,
        transfer_bytes: best.1,
        states,
    })
}

/// Each record that is not pinned where most of the bytes are by then that it takes.
fn follow_bytes(segment: &Segment, pins: &[Option<usize>], devices: &[Device]) -> Vec<usize> {
    let mut at: Vec<Set> = segment.storages.iter().map(|storage| storage.at).collect();
    let mut locality = Locality::default();
    let mut places = Vec::with_capacity(segment.records.len());
    for (record, pin) in segment.records.iter().zip(pins) {
        let device = pin.unwrap_or_else(|| follow(record, segment, &at, devices, &mut locality));
        run(record, device, &mut at);
        places.push(device);
    }
    places
}

/// A record runs: what it takes is there afterwards, what it writes or makes nowhere else.
fn run(record: &Record, device: usize, at: &mut [Set]) {
    for taken in &record.takes {
        let only = Set::EMPTY.with(device);
        at[taken.storage] = match taken.writes {
            true => only,
            false => at[taken.storage].with(device),
        };
    }
    for &made in &record.makes {
        at[made] = Set::EMPTY.with(device);
    }
}

/// Values that move, and their bytes.
fn traffic(segment: &Segment, places: &[usize]) -> (u64, u64) {
    let mut at: Vec<Set> = segment.storages.iter().map(|storage| storage.at).collect();
    let (mut transfers, mut bytes) = (0, 0);
    for (record, &device) in segment.records.iter().zip(places) {
        for taken in &record.takes {
            let holders = at[taken.storage];
            if !holders.is_empty() && !holders.has(device) {
                transfers += 1;
                bytes += segment.storages[taken.storage].bytes;
                // Taken twice, it moves once.
                at[taken.storage] = holders.with(device);
            }
        }
        run(record, device, &mut at);
    }
    (transfers, bytes)
}

/// What is sent as soon as it is there, since a record elsewhere takes it later; and which copies of state
/// go, since the next cycle writes it.
fn steps(segment: &Segment, places: &[usize]) -> Vec<segment::Step> {
    let count = segment.storages.len();
    // Where a storage was made or written last, which of that record's values it is, and who has it since.
    let mut since: Vec<Option<(usize, usize)>> = vec![None; count];
    let mut holders: Vec<Set> = segment.storages.iter().map(|storage| storage.at).collect();
    // The last record that reads a copy of state where it does not live, and as which of its values.
    let mut last_read: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    let mut steps = Vec::new();
    for (at, (record, &device)) in segment.records.iter().zip(places).enumerate() {
        for (value, taken) in record.takes.iter().enumerate() {
            let storage = taken.storage;
            let is_missing = !holders[storage].is_empty() && !holders[storage].has(device);
            if let Some((made, value)) =
                since[storage].filter(|&(made, _)| is_missing && made + 1 < at)
            {
                steps.push(segment::Step {
                    record: made,
                    act: Act::Send,
                    value,
                    device,
                });
            }
            let lives_elsewhere = !segment.storages[storage].at.has(device);
            if segment.storages[storage].is_state && lives_elsewhere && !taken.writes {
                last_read.insert((storage, device), (at, value));
            }
        }
        run(record, device, &mut holders);
        for (value, taken) in record.takes.iter().enumerate() {
            if taken.writes {
                since[taken.storage] = Some((at, value));
                // It ends all other copies.
                let all = (taken.storage, 0)..(taken.storage + 1, 0);
                let ended: Vec<_> = last_read.range(all).map(|(&copy, _)| copy).collect();
                for copy in ended {
                    last_read.remove(&copy);
                }
            }
        }
        for (value, &made) in record.makes.iter().enumerate() {
            since[made] = Some((at, record.takes.len() + value));
        }
    }
    steps.extend(
        last_read
            .into_iter()
            .map(|((_, device), (record, value))| segment::Step {
                record,
                act: Act::Drop,
                value,
                device,
            }),
    );
    steps.sort_by_key(|step| step.record);
    // Whatever is not sent ahead is sent when it is taken.
    steps.truncate(STEPS_MAX * segment.records.len());
    steps
}

/// Moves records whose results are no smaller than what they take to where these are used, the last first, so
/// that what comes before can follow.
fn make_where_it_is_wanted(
    segment: &Segment,
    pins: &[Option<usize>],
    places: &[usize],
) -> Vec<usize> {
    let mut places = places.to_vec();
    // Who makes a storage, and who holds it then as far as is known.
    let mut holders: Vec<Set> = segment.storages.iter().map(|storage| storage.at).collect();
    for (record, &device) in segment.records.iter().zip(&places) {
        for &made in &record.makes {
            holders[made] = Set::EMPTY.with(device);
        }
    }
    let mut wanted: Vec<Option<usize>> = vec![None; segment.storages.len()];
    let bytes = |storage: usize| segment.storages[storage].bytes;
    for at in (0..segment.records.len()).rev() {
        let record = &segment.records[at];
        let writes = record.takes.iter().any(|taken| taken.writes);
        let largest = record.makes.iter().copied().max_by_key(|&made| bytes(made));
        let device = largest.and_then(|made| wanted[made]);
        if let Some(device) = device.filter(|&device| device != places[at])
            && pins[at].is_none()
            && !writes
        {
            let made: u64 = record.makes.iter().map(|&made| bytes(made)).sum();
            let missing = record.takes.iter().map(|taken| taken.storage);
            let missing = missing.filter(|&storage| !holders[storage].has(device));
            // As much is no worse, and what comes before may gain by it.
            if missing.map(bytes).sum::<u64>() <= made {
                places[at] = device;
                for &made in &record.makes {
                    holders[made] = Set::EMPTY.with(device);
                }
            }
        }
        for taken in &record.takes {
            wanted[taken.storage] = Some(places[at]);
            holders[taken.storage] = holders[taken.storage].with(places[at]);
        }
    }
    places
}

/// The device of a state.
fn home(storage: &Storage, devices: &[Device]) -> Option<usize> {
    let lives = |&at: &usize| devices.get(at).is_some_and(|device| device.alive);
    storage.at.iter().find(lives).filter(|_| storage.is_state)
}

/// Where most of the state is that a record uses.
fn pin(record: &Record, segment: &Segment, homes: &[Option<usize>]) -> Option<usize> {
    let states = record.takes.iter().filter_map(|taken| {
        let home = homes[taken.storage]?;
        Some((segment.storages[taken.storage].bytes, home))
    });
    states.max_by_key(|&(bytes, _)| bytes).map(|(_, home)| home)
}

/// Where most of the bytes are by then.
fn follow(
    record: &Record,
    segment: &Segment,
    at: &[Set],
    devices: &[Device],
    locality: &mut Locality,
) -> usize {
    let inputs: Vec<crate::Input> = (record.takes.iter())
        .map(|taken| crate::Input {
            value: taken.storage as u64,
            bytes: segment.storages[taken.storage].bytes,
            at: at[taken.storage],
            writes: taken.writes,
        })
        .collect();
    let makes = record.makes.iter();
    let step = Step {
        inputs: &inputs,
        fresh_bytes: makes.map(|&made| segment.storages[made].bytes).sum(),
    };
    locality.place(&step, devices).device
}

/// What takes nothing runs where what it makes is used first.
fn draw_where_it_is_wanted(segment: &Segment, places: &mut [usize]) {
    let mut wanted: Vec<Option<usize>> = vec![None; segment.storages.len()];
    for (at, record) in segment.records.iter().enumerate().rev() {
        if record.takes.is_empty()
            && let Some(device) = record.makes.iter().find_map(|&made| wanted[made])
        {
            places[at] = device;
        }
        for taken in &record.takes {
            wanted[taken.storage] = Some(places[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Use;

    fn devices(count: usize) -> Vec<Device> {
        let device = Device {
            alive: true,
            limit_bytes: 1 << 40,
            ..Device::default()
        };
        vec![device; count]
    }

    fn stored(bytes: u64, at: &[usize], is_state: bool) -> Storage {
        Storage {
            bytes,
            at: at.iter().fold(Set::EMPTY, |set, &device| set.with(device)),
            is_state,
        }
    }

    fn record(takes: &[(usize, bool)], makes: &[usize]) -> Record {
        Record {
            takes: (takes.iter())
                .map(|&(storage, writes)| Use { storage, writes })
                .collect(),
            makes: makes.to_vec(),
        }
    }

    /// A decode step of two layers: the weight and the cache of each, a token, and a mask that is drawn.
    fn decode(weights: [usize; 2], caches: [usize; 2]) -> Segment {
        Segment {
            storages: vec![
                stored(1000, &[weights[0]], false),
                stored(1000, &[weights[1]], false),
                stored(5000, &[caches[0]], true),
                stored(5000, &[caches[1]], true),
                stored(8, &[0], false),
                // Made: a mask, then query, grown cache and output of each layer.
                stored(4, &[], false),
                stored(10, &[], false),
                stored(5010, &[], false),
                stored(10, &[], false),
                stored(10, &[], false),
                stored(5010, &[], false),
                stored(10, &[], false),
            ],
            records: vec![
                record(&[], &[5]),
                record(&[(0, false), (4, false)], &[6]),
                record(&[(2, false), (6, false)], &[7]),
                record(&[(7, false), (6, false), (5, false)], &[8]),
                record(&[(1, false), (8, false)], &[9]),
                record(&[(3, false), (9, false)], &[10]),
                record(&[(10, false), (9, false)], &[11]),
            ],
        }
    }

    #[test]
    fn a_cache_stays_where_it_is_and_what_reads_it_runs_there() {
        let plan = plan(&decode([0, 0], [1, 1]), &devices(2)).unwrap();
        assert_eq!(plan.places, [1, 0, 1, 1, 0, 1, 1]);
        assert_eq!(plan.states, 2);
        assert!(plan.transfer_bytes <= 50, "activations move: {plan:?}");
    }

    #[test]
    fn layers_of_two_devices_keep_their_caches() {
        let plan = plan(&decode([0, 1], [0, 1]), &devices(2)).unwrap();
        assert_eq!(plan.places, [0, 0, 0, 0, 1, 1, 1]);
        assert_eq!((plan.transfers, plan.transfer_bytes), (1, 10));
    }

    #[test]
    fn what_is_taken_later_elsewhere_is_sent_when_it_is_made_and_copies_of_state_go() {
        // A state on each device, and a value that both use: made by the first record, taken by the last.
        let segment = Segment {
            storages: vec![
                stored(1000, &[0], true),
                stored(5000, &[1], true),
                stored(10, &[0], false),
                stored(10, &[], false),
                stored(10, &[], false),
                stored(10, &[], false),
            ],
            records: vec![
                record(&[(0, false), (2, false)], &[3]),
                record(&[(0, false), (3, false)], &[4]),
                record(&[(1, false), (3, false), (0, false)], &[5]),
            ],
        };
        let plan = plan(&segment, &devices(2)).unwrap();
        assert_eq!(plan.places, [0, 0, 1]);
        let send = segment::Step {
            record: 0,
            act: Act::Send,
            value: 2,
            device: 1,
        };
        let gone = segment::Step {
            record: 2,
            act: Act::Drop,
            value: 2,
            device: 1,
        };
        assert_eq!(plan.steps, [send, gone]);
        // What is taken at once needs no word.
        let near = decode([0, 0], [1, 1]);
        let plan = super::plan(&near, &devices(2)).unwrap();
        assert!(
            plan.steps.iter().all(|step| step.record + 1 < 6),
            "{plan:?}"
        );
    }

    #[test]
    fn a_gradient_is_made_where_its_parameter_is() {
        // Activations of device 0, and the parameter, which is written, on device 1.
        let segment = Segment {
            storages: vec![
                stored(10, &[0], false),
                stored(10, &[0], false),
                stored(1000, &[1], true),
                stored(1000, &[], false),
                stored(1000, &[], false),
            ],
            records: vec![
                record(&[(0, false), (1, false)], &[3]),
                record(&[(3, false)], &[4]),
                record(&[(2, true), (4, false)], &[]),
            ],
        };
        let plan = plan(&segment, &devices(2)).unwrap();
        assert_eq!(plan.places, [1, 1, 1]);
        assert_eq!((plan.transfers, plan.transfer_bytes), (2, 20));
    }

    #[test]
    fn what_takes_more_than_it_makes_stays() {
        let segment = Segment {
            storages: vec![
                stored(5000, &[0], false),
                stored(1000, &[1], true),
                stored(10, &[], false),
            ],
            records: vec![
                record(&[(0, false)], &[2]),
                record(&[(1, true), (2, false)], &[]),
            ],
        };
        let plan = plan(&segment, &devices(2)).unwrap();
        assert_eq!((plan.places, plan.transfer_bytes), (vec![0, 1], 10));
    }

    #[test]
    fn without_state_there_is_nothing_to_plan() {
        let mut segment = decode([0, 1], [0, 1]);
        for storage in &mut segment.storages {
            storage.is_state = false;
        }
        assert_eq!(plan(&segment, &devices(2)), None);
        // Nor where all that held it is gone.
        let mut gone = devices(2);
        gone[0].alive = false;
        gone[1].alive = false;
        assert_eq!(plan(&decode([0, 0], [0, 0]), &gone), None);
    }
}
