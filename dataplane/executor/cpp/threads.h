// How many threads an operator gets: one, or the team, if there is work enough for that.
#pragma once

#include <cstdint>

namespace genie {

// `wanted` threads for an operator with work enough; 0: as many as there are cores that nobody
// else uses.
void start_threads(uint32_t wanted);

// Before an operator that would take one thread `ns` nanoseconds.
void choose_threads(double ns);

} // namespace genie
