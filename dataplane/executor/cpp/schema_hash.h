// Fingerprint of the operators that a libtorch knows, so that a client and a node refuse each
// other unless both mean the same by every operator. Header-only: the frontend and the executor
// both include it.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "operator_name.h"

namespace genie {

// FNV-1a (64 bit) over the sorted schemas of all `aten::` operators, a line feed after each.
inline uint64_t schema_hash() {
  std::vector<std::string> schemas;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (!is_atens(name.name)) {
      continue;
    }
    if (const auto op = dispatcher.findSchema(name)) {
      std::ostringstream text;
      text << op->schema();
      schemas.push_back(text.str());
    }
  }
  std::sort(schemas.begin(), schemas.end());
  uint64_t hash = 0xcbf29ce484222325ULL;
  const auto add = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3ULL; };
  for (const auto& schema : schemas) {
    for (const char c : schema) {
      add(static_cast<unsigned char>(c));
    }
    add('\n');
  }
  return hash;
}

} // namespace genie
