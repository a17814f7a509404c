// The recorder's C interface: what the C++ backend calls and Rust implements
// (py-frontend/src/ffi.rs). Skeletons and number streams: controlplane/session/src/skeleton.rs.
//
// Every function may be called from any thread, with or without the GIL, and never throws.
// Functions that return GenieStatus set a thread-local error, read by genie_last_error().
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A remote storage: (number of a session's device in this process << 48) | id. Zero is no storage. Never used twice.
typedef uint64_t GenieStorage;

typedef enum GenieStatus {
  GENIE_OK = 0,
  GENIE_UNKNOWN_SHAPE = 1,  // genie_record: the result shapes of this call are not known yet
  GENIE_ERROR = 2,          // see genie_last_error()
  GENIE_NO_ROOM = 3,        // genie_record: call genie_wait_for_room(), encode again, call again
} GenieStatus;

// Exception classes, by which the backend chooses what to throw.
typedef enum GenieErrorClass {
  GENIE_RUNTIME_ERROR = 0,
  GENIE_OUT_OF_MEMORY = 1,     // torch.OutOfMemoryError (c10::OutOfMemoryError)
  GENIE_INDEX_ERROR = 2,
  GENIE_NOT_IMPLEMENTED = 3,
  GENIE_VALUE_ERROR = 4,
  GENIE_PYTHON_CLASS = 5,      // an exception class of the genie package, in python_class
  GENIE_TYPE_ERROR = 6,
  GENIE_LINALG_ERROR = 7,      // torch.linalg.LinAlgError
} GenieErrorClass;

typedef struct GenieError {
  GenieErrorClass error_class;
  void* python_class;    // borrowed PyObject*, for GENIE_PYTHON_CLASS (KeyboardInterrupt too)
  const char* message;   // NUL-terminated; valid until this thread's next call
} GenieError;

void genie_last_error(GenieError* error);

// One operator call (skeleton.rs): structure and numbers apart.
typedef struct GenieCall {
  uint32_t op;            // from genie_intern()
  uint32_t key_has_data;  // nonzero: `data` decides shapes too (arange.start_out and the like)
  const uint8_t* skeleton;
  size_t skeleton_len;
  const GenieStorage* storages;
  size_t n_storages;
  const int64_t* params;
  size_t n_params;
  const int64_t* data;
  size_t n_data;
  int32_t device;         // where it runs if it names no storage
  int64_t sequence_nr;    // autograd's sequence number of this forward operator, or -1;
  int64_t forward_nr;     // in a backward: the sequence number of the forward operator, or -1
} GenieCall;

// Results: a result skeleton (skeleton.rs, `out`), sizes and strides of the fresh ones in order.
typedef struct GenieResults {
  const uint8_t* skeleton;
  size_t skeleton_len;
  const int64_t* params;
  size_t n_params;
} GenieResults;

// Numbers an operator; the same name always gets the same number. "aten::add.Tensor".
uint32_t genie_intern(const char* name);

// Appends a call. On GENIE_OK, *results describes the results (owned by the recorder, valid until
// this thread's next call) and *first_fresh is the storage of the first fresh one; the following
// fresh results count up by one. On GENIE_UNKNOWN_SHAPE nothing was appended: infer, then
// genie_learn(), then call again.
// It runs no Python code. Where too much is under way it gives GENIE_NO_ROOM, and nothing was
// appended: a handler that runs in the wait may change what the call was encoded from.
GenieStatus genie_record(const GenieCall* call, GenieResults* results, GenieStorage* first_fresh);

// A call that was recorded before, to be recorded again for other storages, which are known by slots.
typedef struct GenieReplayed {
  GenieCall call;          // without its storages
  GenieResults results;
  const uint32_t* slots;   // of its storages, in order
  size_t n_slots;
  uint32_t first_fresh;    // the slot of its first fresh storage; those of the others follow
  uint32_t n_fresh;
  const uint32_t* freed;   // slots whose storages die after it
  size_t n_freed;
  uint32_t site;
} GenieReplayed;

// Appends calls of one device, as genie_record would one by one; what storages they make is put into
// `slots`, and zero in place of those that died. With GENIE_OK all *done are appended; with GENIE_NO_ROOM
// the first *done.
GenieStatus genie_replay(
    const GenieReplayed* calls,
    size_t count,
    int32_t device,
    GenieStorage* slots,
    size_t n_slots,
    size_t* done);
// How many records this session has by now, of all threads.
uint64_t genie_position(void);

// From now on this thread's calls are of this line (genie._native.site), or, with 0, of the one that runs.
void genie_set_site(uint32_t site);

// Waits, and lets Python's signal handlers run meanwhile.
GenieStatus genie_wait_for_room(void);

// Remembers the results of a call by its signature (op, skeleton, params, and data if
// key_has_data). Bounded cache.
GenieStatus genie_learn(const GenieCall* call, const GenieResults* results);

// Runs a call whose results only the node can tell; waits. Results that are not tensors come as
// an argument skeleton of scalar tags with their data.
typedef struct GenieSyncResults {
  GenieResults results;
  GenieStorage first_fresh;
  const uint8_t* value_skeleton;
  size_t value_skeleton_len;
  const int64_t* value_data;
  size_t n_value_data;
} GenieSyncResults;
GenieStatus genie_call_sync(const GenieCall* call, GenieSyncResults* results);

// A new storage of uninitialised bytes. Fails when not connected.
GenieStatus genie_alloc(int32_t device, uint64_t nbytes, GenieStorage* storage);
// Never blocks, never fails; storages of earlier sessions are ignored.
void genie_free(GenieStorage storage);
GenieStatus genie_resize(GenieStorage storage, uint64_t nbytes);

// Overwrites all of a storage. Returns when the source may be changed.
GenieStatus genie_upload(GenieStorage storage, const void* source, uint64_t nbytes);

// A strided view of a storage.
typedef struct GenieView {
  GenieStorage storage;
  uint8_t flags;  // skeleton flag bits: negative, conjugate
  uint8_t dtype;  // c10::ScalarType
  int64_t offset; // elements
  const int64_t* sizes;
  const int64_t* strides;
  size_t ndim;
} GenieView;

// Bytes of a storage.
typedef struct GenieBytes {
  GenieStorage storage;
  uint64_t offset;
  uint64_t nbytes;
} GenieBytes;

// Waits, and writes the view's elements, contiguous, into `destination`. Its storage has `whole` bytes. What the
// program will look at `next` is asked for with it.
GenieStatus genie_fetch(
    const GenieView* view,
    void* destination,
    uint64_t nbytes,
    uint64_t whole,
    const GenieBytes* next,
    size_t n_next);

// Values that this thread is going to fetch, one after the other: they are asked for together with the first.
void genie_expect(const GenieBytes* values, size_t count);

// Moves the view's elements to another device of the session, contiguous, into a new storage. Does not
// wait for them.
GenieStatus genie_move(
    const GenieView* view, int32_t device, uint64_t nbytes, GenieStorage* storage);

// Memory on this machine for a large result, kept for the next one when it is given back.
// NULL if the system has none. *capacity goes back with the memory.
void* genie_host_take(uint64_t nbytes, uint64_t* capacity);
void genie_host_give(void* memory, uint64_t capacity);
#define GENIE_HOST_MIN (1 << 20)  // smaller results do not use it

// GENIE_ERROR in a child that was forked from a process with a session. Locks of that process may
// be held for ever there, ours and the guards of C++'s statics: a kernel asks before it comes near
// one. Functions of this header with a status ask by themselves.
GenieStatus genie_usable(void);

// Waits until everything recorded so far has run.
GenieStatus genie_barrier(void);

// Devices of the session; 0 when not connected.
int32_t genie_device_count(void);
// The same; connects first where the environment names nodes and nobody has connected.
int32_t genie_devices_to_be_had(void);
// Bytes that this session's tensors may take on a device; 0 where there is none.
uint64_t genie_device_limit(int32_t device);

// Whether a device computes on its node's CPU; of a pool, whether all do.
int32_t genie_is_host(int32_t device);

// Whether the program leaves it to the session on which device each operator runs.
int32_t genie_is_pool(void);
// The devices that hold storages, by their place in the session; -1 for one that nobody holds yet.
GenieStatus genie_places(const GenieStorage* storages, size_t count, int32_t* places);

// Whether a device has an operator besides libtorch's own: 0 no, 1 yes, 2 one of this name with another
// schema. Of a pool, whether all of its devices have it.
int32_t genie_offers(int32_t device, const char* name, const char* schema);

// Counts one operator that ran on the client's CPU, for stats; true the first time for `name`
// (the caller then warns once).
int32_t genie_count_fallback(const char* name);

// Notes beside a new tensor (TensorImpl*) what this thread's running task says of what it makes, by
// genie_backend_annotation_note().
void genie_annotate(void* tensor);
// No tensor, and no task, has this annotation any more.
void genie_annotation_gone(uint64_t number);

// What this thread records next begins now; asked for while somebody profiles.
void genie_begins(void);

// A warning of Python's.
void genie_warn(const char* text);

// --- provided by the C++ backend, called by Rust once at import / by Python functions ---
// Registers the PrivateUse1 backend under the name remote_accelerator. NULL on success, else a
// message.
const char* genie_backend_register(void);
// Calls `look`, which may run Python code, as if this thread were in no kernel.
int32_t genie_backend_outside(int32_t (*look)(void));
// An annotation, to be dropped once by who made it; tensors that it was noted beside keep it.
void* genie_backend_annotation_new(uint64_t number);
void genie_backend_annotation_drop(void* annotation);
void genie_backend_annotation_note(void* tensor, void* annotation);
// Somebody profiles, or no longer.
void genie_backend_profile(int32_t is_on);
// FNV-1a 64 of all aten schemas.
uint64_t genie_backend_schema_hash(void);

#ifdef __cplusplus
}
#endif
