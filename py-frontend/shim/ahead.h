// What the program will look at next, told from its last looks.
#pragma once

#include <cstdint>
#include <vector>

#include "recorder.h"

namespace genie {

// A storage was made, or is about to die: what is not known to be there is not asked for.
void note_made(GenieStorage handle, uint64_t bytes) noexcept;
void note_freed(GenieStorage handle) noexcept;

// This thread looks at `nbytes` of a storage; gives the storages that it will look at next.
std::vector<GenieBytes> next_looks(GenieStorage handle, uint64_t nbytes);

}  // namespace genie

// Whether a storage of so many bytes is known to be there. Denied from before it is freed.
extern "C" int32_t genie_backend_is_there(GenieStorage storage, uint64_t nbytes);
