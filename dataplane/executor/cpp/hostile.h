// Calls that mean harm: any operator of the list, arguments drawn from a seed, memory with guards.
// For tests; no program that serves anybody links it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What came of a call.
enum { GENIE_RAN = 0, GENIE_CHECKED = 1, GENIE_RAISED = 2, GENIE_CANARY = 3, GENIE_UNKNOWN = 4 };

// In a child that was just forked: guarded memory, one thread or two, and words in `fault` when a
// signal ends it.
int genie_hostile_start(uint32_t threads, char* fault, size_t room);
// One call. `text` says what was passed, before it is.
int genie_hostile_call(
    const char* name, const char* overload, uint64_t seed, char* text, size_t room);

#ifdef __cplusplus
}
#endif
