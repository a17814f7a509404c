//! The grammar is one: tags are dense, and what is written by it is read by it.

use super::*;
use grammar::{Field, Line, Streams};

/// An item of each line, with three of what it counts.
fn bytes_of(line: &Line) -> Vec<u8> {
    let mut bytes = vec![line.tag];
    for field in line.fields {
        match field {
            Field::Byte => bytes.push(3),
            Field::Count => bytes.extend([3, 0]),
            Field::Bytes => bytes.extend([3, 0, 1, 0, 1]),
        }
    }
    if line.streams == Streams::Items {
        bytes.extend([0, 0, 0]);
    }
    bytes
}

#[test]
fn tags_are_dense_so_that_a_table_is_found_by_them() {
    for lines in [tag::ALL, out::ALL] {
        let tags: Vec<usize> = lines.iter().map(|line| usize::from(line.tag)).collect();
        assert_eq!(tags, (0..lines.len()).collect::<Vec<_>>());
    }
}

#[test]
fn an_item_of_every_tag_is_read_whole_and_counted() {
    for line in tag::ALL {
        let bytes = bytes_of(line);
        let counts = measure(&bytes, |_, _, _| {}).unwrap_or_else(|e| panic!("{}: {e}", line.name));
        let expected = match line.streams {
            Streams::Nothing | Streams::Items => (0, 0, 0),
            Streams::Param => (0, 1, 0),
            Streams::Datum | Streams::Number => (0, 0, 1),
            Streams::TwoData => (0, 0, 2),
            Streams::Params => (0, 3, 0),
            Streams::Data => (0, 0, 3),
            Streams::View => (1, 7, 0),
            Streams::Made => (1, 6, 0),
        };
        let counted = (counts.storages, counts.params, counts.data);
        assert_eq!(counted, expected, "{}", line.name);
        for end in 1..bytes.len() {
            let cut = measure(&bytes[..end], |_, _, _| {});
            assert_eq!(cut, Err(WireError::Truncated), "{} at {end}", line.name);
        }
    }
    for line in out::ALL {
        let bytes = bytes_of(line);
        assert!(
            measure_out(&bytes, |_, _| {}, |_| {}).is_ok(),
            "{}",
            line.name
        );
        for end in 1..bytes.len() {
            assert!(measure_out(&bytes[..end], |_, _| {}, |_| {}).is_err());
        }
    }
}

#[test]
fn unknown_tags_are_refused() {
    assert!(measure(&[tag::ALL.len() as u8], |_, _, _| {}).is_err());
    assert!(measure_out(&[out::ALL.len() as u8], |_, _| {}, |_| {}).is_err());
}

#[test]
fn the_default_dtype_stands_first_and_the_seed_last() {
    let good = [tag::DEFAULT_DTYPE, 15, tag::INT, tag::SEED];
    assert!(measure(&good, |_, _, _| {}).is_ok());
    for bad in [
        &[tag::INT, tag::DEFAULT_DTYPE, 15][..],
        &[tag::SEED, tag::INT],
        &[tag::LIST, 1, 0, tag::SEED],
        &[tag::LIST, 1, 0, tag::DEFAULT_DTYPE, 15],
    ] {
        assert!(measure(bad, |_, _, _| {}).is_err(), "{bad:?}");
    }
}

#[test]
fn lists_do_not_nest_and_are_bounded() {
    assert!(measure(&[tag::LIST, 1, 0, tag::LIST, 0, 0], |_, _, _| {}).is_err());
    let full = |n: usize| [&[tag::LIST][..], &(n as u16).to_le_bytes(), &vec![0; n]].concat();
    assert!(measure(&full(ITEMS_MAX - 1), |_, _, _| {}).is_ok());
    assert!(matches!(
        measure(&full(ITEMS_MAX), |_, _, _| {}),
        Err(WireError::TooMany { .. })
    ));
}

#[test]
fn the_header_names_every_tag() {
    let header = cpp::header();
    for line in tag::ALL.iter().chain(out::ALL) {
        let constant = format!("uint8_t {} = {};", line.name, line.tag);
        assert!(header.contains(&constant), "{constant}");
    }
    assert_eq!(header.matches('{').count(), header.matches('}').count());
}
