// What the program will look at next, told from its last looks.
#pragma once

#include <cstdint>
#include <vector>

#include "recorder.h"

namespace genie {

// A storage was made, or died: what is not known to be there is not asked for.
void note_made(GenieStorage handle, uint64_t bytes) noexcept;
void note_freed(GenieStorage handle) noexcept;

// This thread looks at `nbytes` of a storage; gives the storages that it will look at next.
std::vector<GenieBytes> next_looks(GenieStorage handle, uint64_t nbytes);

}  // namespace genie
