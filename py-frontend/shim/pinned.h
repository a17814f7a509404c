// Host memory that a program calls pinned.
#pragma once

#include <c10/core/Allocator.h>

namespace genie {

c10::Allocator* pinned_allocator();

// Whether memory of that allocator is there.
bool is_pinned(const void* data);

}  // namespace genie
