//! The grammar for C++: what build scripts write out as `skeleton.h`.

use std::fmt::Write as _;

use super::grammar::{Field, Line, Streams};
use super::{element_bytes, flag, is_complex, out, tag};
use crate::fault::Code;

/// Reads items by the tables. `In` has `bytes(n)`, and of the streams `storage()`, `params(n)` and
/// `data(n)`, each with its bounds.
const READER: &str = r#"
// What an item takes of the streams; n is its last field.
enum class Takes : uint8_t {
  Nothing, Param, Datum, TwoData, Params, Data, Items, View, Made, Number };

struct Layout {
  // Bytes behind the tag.
  uint8_t fixed;
  // The last two of them are a count, little-endian.
  bool counted;
  // So many bytes follow.
  bool bytes;
  Takes takes;
};

// One item with all that belongs to it.
struct Item {
  uint8_t tag = 0;
  // The bytes behind the tag.
  const uint8_t* fields = nullptr;
  // Its last field: how many of what follows, or which dtype.
  size_t n = 0;
  // The n bytes of a string.
  const uint8_t* bytes = nullptr;
  const int64_t* params = nullptr;
  const int64_t* data = nullptr;
};

// The next item of a skeleton. Throws what `in` does where something is missing; false where the tag
// is none. Storages are left to the caller: results make theirs.
template <typename In, size_t tags>
bool next_item(In& in, const Layout (&layouts)[tags], Item& item) {
  item = Item();
  item.tag = *in.bytes(1);
  if (item.tag >= tags) {
    return false;
  }
  const Layout& layout = layouts[item.tag];
  item.fields = in.bytes(layout.fixed);
  if (layout.counted) {
    item.n = item.fields[layout.fixed - 2] | (item.fields[layout.fixed - 1] << 8);
  } else if (layout.fixed > 0) {
    item.n = item.fields[layout.fixed - 1];
  }
  if (layout.bytes) {
    item.bytes = in.bytes(item.n);
  }
  switch (layout.takes) {
    case Takes::Nothing:
    case Takes::Items:
      break;
    case Takes::Param:
      item.params = in.params(1);
      break;
    case Takes::Params:
      item.params = in.params(item.n);
      break;
    case Takes::View:
      item.params = in.params(1 + 2 * item.n);
      break;
    case Takes::Made:
      item.params = in.params(2 * item.n);
      break;
    case Takes::Datum:
      item.data = in.data(1);
      break;
    case Takes::TwoData:
      item.data = in.data(2);
      break;
    case Takes::Data:
      item.data = in.data(item.n);
      break;
    case Takes::Number:
      item.data = in.data(is_complex(item.n) ? 2 : 1);
      break;
  }
  return true;
}
"#;

/// The text of `skeleton.h`: tags, flags, layouts, a reader of items, and the codes of faults.
#[must_use]
pub fn header() -> String {
    let mut text = String::from(
        "// Made by genie-session from its grammar of skeletons: see skeleton/grammar.rs there.\n\
         #pragma once\n#include <cstddef>\n#include <cstdint>\nnamespace genie {\n",
    );
    let constants = |lines: &[Line]| lines.iter().map(|l| (l.name, l.tag)).collect::<Vec<_>>();
    namespace(&mut text, "tag", &constants(tag::ALL));
    namespace(&mut text, "out", &constants(out::ALL));
    namespace(&mut text, "flag", flag::ALL);
    let codes: Vec<_> = Code::ALL
        .iter()
        .map(|code| (format!("{code:?}"), *code as u8))
        .collect();
    let codes: Vec<_> = codes.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    namespace(&mut text, "code", &codes);
    for (name, about, holds) in [
        (
            "DTYPE_MASK",
            "Scalar types that Genie carries.",
            mask(|dtype| element_bytes(dtype).is_some()),
        ),
        (
            "COMPLEX_MASK",
            "Those whose numbers have two parts.",
            mask(is_complex),
        ),
    ] {
        put(
            &mut text,
            format_args!("// {about}\ninline constexpr uint64_t {name} = {holds:#x}ULL;\n"),
        );
    }
    text.push_str(
        "constexpr bool is_complex(size_t dtype) {\n  return dtype < 64 && (COMPLEX_MASK >> dtype & \
         1) != 0;\n}\n",
    );
    text.push_str(READER);
    table(&mut text, "ARGUMENTS", tag::ALL);
    table(&mut text, "RESULTS", out::ALL);
    text.push_str("}  // namespace genie\n");
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(what);
}

fn mask(holds: impl Fn(u8) -> bool) -> u64 {
    (0..64)
        .filter(|&dtype| holds(dtype))
        .fold(0, |mask, dtype| mask | (1 << dtype))
}

fn namespace(text: &mut String, name: &str, constants: &[(&str, u8)]) {
    put(text, format_args!("namespace {name} {{\n"));
    for (constant, value) in constants {
        put(
            text,
            format_args!("inline constexpr uint8_t {constant} = {value};\n"),
        );
    }
    put(
        text,
        format_args!(
            "// How many there are. Who handles them all says so, and a new one is an error there.\n\
             inline constexpr size_t COUNT = {};\n}}\n",
            constants.len()
        ),
    );
}

fn table(text: &mut String, name: &str, lines: &[Line]) {
    put(
        text,
        format_args!("inline constexpr Layout {name}[] = {{\n"),
    );
    for line in lines {
        let fixed: usize = line
            .fields
            .iter()
            .map(|field| match field {
                Field::Byte => 1,
                Field::Count | Field::Bytes => 2,
            })
            .sum();
        let last = line.fields.last();
        let bytes = last == Some(&Field::Bytes);
        let counted = bytes || last == Some(&Field::Count);
        let streams: Streams = line.streams;
        put(
            text,
            format_args!(
                "    {{{fixed}, {counted}, {bytes}, Takes::{streams:?}}},  // {}\n",
                line.name
            ),
        );
    }
    text.push_str("};\n");
}
