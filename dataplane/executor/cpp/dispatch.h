// The C interface between the executor (Rust) and libtorch. Nothing throws across it: a function
// that can fail returns 0 for success or a fault code, and genie_last_error tells why.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// One reference to a c10::StorageImpl.
typedef struct GenieStorage GenieStorage;
// An operator with its arguments' kinds resolved.
typedef struct GenieOperator GenieOperator;

// One operator call. The streams are as genie-session's `skeleton` module describes them.
typedef struct {
  const uint8_t* skeleton;
  size_t skeleton_len;
  GenieStorage* const* storages;
  size_t storages_len;
  const int64_t* params;
  size_t params_len;
  const int64_t* data;
  size_t data_len;
  const uint8_t* out;
  size_t out_len;
  const int64_t* out_params;
  size_t out_params_len;
} GenieCall;

// Results of a synchronous call. Valid until the thread's next call.
typedef struct {
  const uint8_t* out;
  size_t out_len;
  const int64_t* out_params;
  size_t out_params_len;
  const uint8_t* value;
  size_t value_len;
  const int64_t* value_data;
  size_t value_data_len;
} GenieMetas;

// A strided view of a storage, offset and strides in elements.
typedef struct {
  GenieStorage* storage;
  uint8_t flags;
  uint8_t dtype;
  int64_t offset;
  const int64_t* sizes;
  const int64_t* strides;
  size_t ndim;
} GenieView;

// Message of the calling thread's last failure. Valid until its next failure.
const char* genie_last_error(size_t* len);

// Version of the libtorch that was loaded, as `major.minor.patch`.
const char* genie_torch_version(void);
// See schema_hash.h.
uint64_t genie_schema_hash(void);
// True if the dispatcher knows this operator.
int genie_operator_exists(const char* name, const char* overload);

// An operator that a library defines.
typedef struct {
  // `torchvision::nms`, with `.` and its overload where it has one.
  const char* name;
  // As PyTorch prints it.
  const char* schema;
  // 1: a record can carry a call of it.
  int is_carried;
} GenieLibraryOperator;

// Loads a shared object, with all of its symbols. The process has one thread.
int genie_load_shared(const char* path);
// The same for one that defines operators, in namespaces of its own.
int genie_library_load(const char* path);
// Those that the last one defined. Valid until the next is loaded.
const GenieLibraryOperator* genie_library_operators(size_t* len);

// Opens what tells how busy the machine is, for the executors that are forked from here.
void genie_watch_cores(void);
// Learns of the machine what takes files to learn.
void genie_look_around(void);
// Prepares the calling thread, which is the only one to call anything below: inference mode,
// `threads` threads for an operator with work enough (0: as many as have a free core), CPU memory from genie_memory_allocate, and
// for `cuda_index` >= 0 the CUDA kernels and that device.
int genie_start(int cuda_index, uint32_t threads);
// Waits until the device has done all that it was told.
int genie_synchronize(void);

int genie_operator_find(const char* name, const char* overload, const GenieOperator** found);

// Runs an operator. `fresh` has room for every FRESH item of `call->out`; each gets one owned
// reference, or all stay untouched on failure.
int genie_call(const GenieOperator* op, const GenieCall* call, GenieStorage** fresh);
// Runs an operator of unknown results, at most `reserved` of them fresh.
int genie_call_sync(
    const GenieOperator* op,
    const GenieCall* call,
    uint64_t reserved,
    GenieStorage** fresh,
    size_t* fresh_len,
    GenieMetas* metas);

// A new storage of `bytes` uninitialised bytes.
int genie_storage_new(uint64_t bytes, GenieStorage** storage);
// A storage of a copy of `bytes` bytes at `source`.
int genie_storage_copy(const void* source, uint64_t bytes, GenieStorage** storage);
// Another of the same bytes.
int genie_storage_clone(GenieStorage* storage, GenieStorage** copy);
// A storage over `bytes` bytes at the device's address `data`, which are given back by
// genie_place_release(place, bytes) when the last reference dies. What the device was told before
// may still be reading them then.
int genie_storage_place(void* data, uint64_t bytes, uint64_t place, GenieStorage** storage);
int genie_storage_resize(GenieStorage* storage, uint64_t bytes);
uint64_t genie_storage_bytes(const GenieStorage* storage);
// First byte, or NULL where it is not in the machine's memory.
const void* genie_storage_data(const GenieStorage* storage);
// One more reference, freed like the others.
GenieStorage* genie_storage_share(GenieStorage* storage);
void genie_storage_free(GenieStorage* storage);
// Copies the elements of `view`, row-major, to the device's address `target` of `target_bytes` bytes.
int genie_fetch(const GenieView* view, void* target, uint64_t target_bytes);

// Given by the executor, called from any thread.
void* genie_memory_allocate(size_t bytes);
void genie_memory_free(void* data);
// Bytes in use and the most that may be.
void genie_memory_state(uint64_t* used, uint64_t* limit);
void genie_place_release(uint64_t place, uint64_t bytes);

#ifdef __cplusplus
}
#endif
