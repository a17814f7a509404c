// The part of CUDA's driver API that Genie calls, without a GPU, for tests.
//
// Strict where a driver is lenient: what the documentation (cuda.h of 13.0) does not allow is
// answered with its error and noted as a violation; an error that a caller may rely on is noted as a
// refusal. Device memory is memfds, out of the CPU's reach at the device's addresses. Streams run
// late, each on a thread of its own. Any call can be told to fail.

#include "streams.h"
#include "work.h"

extern "C" {

struct Properties {
    int type, handle_types;
    Location location;
    void *windows;
    unsigned char compression, rdma;
    unsigned short usage;
    unsigned char nothing[4];
};
struct Access {
    Location location;
    int flags;
};
// ---- Device and context

int cuInit(unsigned flags)
{
    CALL(NOTHING);
    initialised = true;
    return flags ? bad(INVALID_VALUE, "cuInit with flags") : SUCCESS;
}

int cuGetErrorString(int code, const char **text)
{
    static const std::map<int, const char *> texts = {
        {INVALID_VALUE, "invalid argument"},
        {OUT_OF_MEMORY, "out of memory"},
        {NOT_INITIALIZED, "initialization error"},
        {INVALID_DEVICE, "invalid device ordinal"},
        {INVALID_CONTEXT, "invalid device context"},
        {INVALID_HANDLE, "invalid resource handle"},
        {ALREADY_REGISTERED, "part or all of the requested memory range is already mapped"},
        {NOT_REGISTERED, "pointer does not correspond to a registered memory region"},
        {LAUNCH_FAILED, "unspecified launch failure"},
        {UNKNOWN, "unknown error"},
    };
    auto found = texts.find(code);
    *text = found == texts.end() ? nullptr : found->second;
    return *text ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGet(int *device, int ordinal)
{
    CALL(DRIVER);
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : refuse(INVALID_DEVICE, "there is no device %d", ordinal);
}

int cuDeviceGetName(char *name, int len, int)
{
    CALL(DRIVER);
    snprintf(name, len, "a simulated GPU");
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int)
{
    CALL(DRIVER);
    auto found = attributes.find(attribute);
    if (found == attributes.end())
        return bad(INVALID_VALUE, "attribute %d is not simulated", attribute);
    *value = found->second;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int)
{
    CALL(DRIVER);
    retained++;
    *context = &primary;
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int)
{
    CALL(DRIVER);
    if (retained == 0)
        return bad(INVALID_CONTEXT, "the primary context is released more often than retained");
    retained--;
    return SUCCESS;
}

int cuCtxGetCurrent(void **context)
{
    CALL(NOTHING);
    *context = current;
    return SUCCESS;
}

int cuCtxSetCurrent(void *context)
{
    CALL(NOTHING);
    if (context != &primary || retained == 0)
        return bad(INVALID_CONTEXT, "cuCtxSetCurrent of a context that is gone");
    current = context;
    return SUCCESS;
}

int cuCtxSynchronize()
{
    CALL(CONTEXT);
    std::map<std::shared_ptr<Stream>, u64> until;
    for (auto &stream : running)
        until[stream] = stream->submitted;
    for (auto &[stream, number] : until)
        await(hold, stream, number);
    return SUCCESS;
}

int cuMemGetInfo_v2(size_t *free, size_t *total)
{
    CALL(CONTEXT);
    *free = memory_max - used, *total = memory_max;
    return SUCCESS;
}

// ---- Device memory

static int check_properties(const Properties *of, const char *name)
{
    bool sound = of->type == 1 && of->handle_types == 1 && of->location.type == 1 && of->location.id == 0 &&
                 !of->windows && !of->compression && of->rdma <= attributes[110] && !of->usage;
    return sound ? SUCCESS : bad(INVALID_VALUE, "%s with properties that the device has not", name);
}

int cuMemGetAllocationGranularity(size_t *bytes, const Properties *properties, int option)
{
    CALL(DRIVER);
    *bytes = PAGE;
    return option >> 1 ? bad(INVALID_VALUE, "no such granularity") : check_properties(properties, __func__);
}

int cuMemAddressReserve(u64 *address, size_t len, size_t alignment, u64 hint, u64 flags)
{
    CALL(DRIVER);
    if (len == 0 || len % PAGE || alignment || hint || flags)
        return bad(INVALID_VALUE, "reserving %zu bytes at %llx", len, hint);
    void *wide = mmap(nullptr, len + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (wide == MAP_FAILED)
        return refuse(OUT_OF_MEMORY, "no %zu bytes of addresses", len);
    u64 at = (u64)wide, start = (at + PAGE - 1) / PAGE * PAGE;
    if (start > at)
        munmap(wide, start - at);
    if (at + PAGE > start)
        munmap((void *)(start + len), at + PAGE - start);
    reserved[*address = start] = len;
    return SUCCESS;
}

int cuMemAddressFree(u64 address, size_t len)
{
    CALL(DRIVER);
    auto found = reserved.find(address);
    if (found == reserved.end() || found->second != len)
        return bad(INVALID_VALUE, "freeing addresses %llx..+%zu, which were not reserved so", address, len);
    if (!is_free(mapped, {address, len}, mapped_len))
        return bad(INVALID_VALUE, "freeing addresses %llx with memory behind them", address);
    munmap((void *)address, len);
    reserved.erase(found);
    return SUCCESS;
}

int cuMemCreate(u64 *handle, size_t len, const Properties *properties, u64 flags)
{
    CALL(DRIVER);
    if (len == 0 || len % PAGE || flags)
        return bad(INVALID_VALUE, "creating %zu bytes", len);
    if (int answer = check_properties(properties, __func__))
        return answer;
    if (used + len > memory_max)
        return refuse(OUT_OF_MEMORY, "no %zu bytes left", len);
    int file = memfd_create("simulated-cuda", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, len) < 0)
        return refuse(OUT_OF_MEMORY, "the host has no memfd left");
    byte *bytes = (byte *)mmap(nullptr, len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    used += len;
    handles[*handle = next_handle++].reset(new Backing{file, bytes, len, true});
    return SUCCESS;
}

int cuMemRelease(u64 handle)
{
    CALL(DRIVER);
    FIND(handles, handle, "handle, or not any more");
    handles.erase(found_handles);
    return SUCCESS;
}

int cuMemMap(u64 address, size_t len, size_t offset, u64 handle, u64 flags)
{
    CALL(DRIVER);
    FIND(handles, handle, "handle");
    auto backing = found_handles->second;
    if (address % PAGE || len == 0 || len % PAGE || offset || flags)
        return bad(INVALID_VALUE, "mapping %zu bytes at %llx", len, address);
    if (len > backing->len)
        return refuse(INVALID_VALUE, "mapping %zu bytes of a handle with %llu", len, backing->len);
    auto after = reserved.upper_bound(address);
    if (after == reserved.begin() || !Span{std::prev(after)->first, std::prev(after)->second}.holds({address, len}))
        return bad(INVALID_VALUE, "mapping at %llx, which is not reserved", address);
    if (!is_free(mapped, {address, len}, mapped_len))
        return bad(INVALID_VALUE, "mapping over a mapping at %llx", address);
    mmap((void *)address, len, PROT_NONE, MAP_SHARED | MAP_FIXED, backing->file, 0);
    mapped[address] = {len, backing, false};
    return SUCCESS;
}

int cuMemSetAccess(u64 address, size_t len, const Access *access, size_t count)
{
    CALL(DRIVER);
    auto found = mapped.find(address);
    if (found == mapped.end() || found->second.len != len)
        return bad(INVALID_VALUE, "access to %llx..+%zu, which is no mapping", address, len);
    if (count != 1 || access->location.type != 1 || access->location.id != 0 || access->flags != 3)
        return bad(INVALID_VALUE, "access of another kind");
    found->second.accessible = true;
    if (alone)
        mprotect((void *)address, len, PROT_READ | PROT_WRITE);
    return SUCCESS;
}

int cuMemUnmap(u64 address, size_t len)
{
    CALL(DRIVER);
    auto found = mapped.find(address);
    if (found == mapped.end() || found->second.len != len)
        return bad(INVALID_VALUE, "unmapping %llx..+%zu, which is no mapping", address, len);
    if (is_used({address, len}))
        bad(SUCCESS, "unmapping %llx, which a stream still uses", address);
    mmap((void *)address, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    mapped.erase(found);
    return SUCCESS;
}

int cuMemExportToShareableHandle(int *file, u64 handle, int type, u64 flags)
{
    CALL(DRIVER);
    FIND(handles, handle, "handle");
    if (type != 1 || flags)
        return bad(INVALID_VALUE, "exporting another kind of handle");
    *file = fcntl(found_handles->second->file, F_DUPFD_CLOEXEC, 0);
    return *file < 0 ? refuse(UNKNOWN, "no descriptor left") : SUCCESS;
}

int cuMemImportFromShareableHandle(u64 *handle, void *os_handle, int type)
{
    CALL(DRIVER);
    char path[64], name[64] = {};
    struct stat stat;
    int given = (int)(long)os_handle;
    snprintf(path, sizeof path, "/proc/self/fd/%d", given);
    if (type != 1 || fstat(given, &stat) < 0)
        return bad(INVALID_VALUE, "importing what is no open file");
    if (readlink(path, name, sizeof name - 1) < 0 || strncmp(name, "/memfd:simulated-cuda", 21))
        return refuse(INVALID_VALUE, "importing what was not exported");
    int file = fcntl(given, F_DUPFD_CLOEXEC, 0);
    byte *bytes = (byte *)mmap(nullptr, stat.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    handles[*handle = next_handle++].reset(new Backing{file, bytes, (u64)stat.st_size, false});
    return SUCCESS;
}

// ---- Host memory

static bool is_host_mapped(Span span)
{
    std::vector<unsigned char> resident(span.len / HOST_PAGE + 2);
    u64 start = span.at / HOST_PAGE * HOST_PAGE;
    return mincore((void *)start, span.at + span.len - start, resident.data()) == 0;
}

int cuMemHostRegister_v2(void *address, size_t len, unsigned flags)
{
    CALL(CONTEXT);
    Span span{(u64)address, len};
    // Portable and mapped for the device.
    if (len == 0 || flags != 3 || !is_host_mapped(span))
        return bad(INVALID_VALUE, "registering %zu bytes at %p", len, address);
    // Whole pages are pinned.
    u64 start = span.at / HOST_PAGE * HOST_PAGE, end = (span.at + len + HOST_PAGE - 1) / HOST_PAGE * HOST_PAGE;
    if (!is_free(registered, {start, end - start}, plain_len))
        return refuse(ALREADY_REGISTERED, "%p is registered already", address);
    registered[span.at] = len;
    return SUCCESS;
}

int cuMemHostUnregister(void *address)
{
    CALL(CONTEXT);
    auto found = registered.find((u64)address);
    if (found == registered.end())
        return bad(NOT_REGISTERED, "unregistering %p, which is not registered", address);
    Span span{found->first, found->second};
    if (is_used(span))
        bad(SUCCESS, "unregistering %p, which a stream still uses", address);
    if (!is_host_mapped(span))
        bad(SUCCESS, "%p was unmapped before it was unregistered", address);
    registered.erase(found);
    return SUCCESS;
}
}
