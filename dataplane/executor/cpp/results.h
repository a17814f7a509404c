// From a stack of results to storages.
#pragma once

#include <vector>

#include "arguments.h"

namespace genie {

// Checks results against the client's prediction and appends one owned storage for every fresh
// one. On an exception `fresh` holds what was taken so far.
void bind_predicted(
    const Operator& op,
    const GenieCall& call,
    const torch::jit::Stack& results,
    std::vector<GenieStorage*>& fresh);

// Streams of GenieMetas.
struct Described {
  std::vector<uint8_t> out;
  std::vector<int64_t> out_params;
  std::vector<uint8_t> value;
  std::vector<int64_t> value_data;
  std::vector<GenieStorage*> fresh;
};

// Describes results that nobody predicted. `arguments` as genie::build gave them.
void describe(
    const Operator& op,
    const torch::jit::Stack& results,
    const std::vector<c10::TensorImpl*>& arguments,
    uint64_t reserved,
    Described& described);

} // namespace genie
