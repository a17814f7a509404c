// The driver's calls for streams, events, copies and the kernel.

#pragma once

#include "streams.h"

extern "C" {

struct CopyAttributes {
    int source_order;
    Location from, to;
    unsigned flags;
};

// ---- Streams and events

int cuStreamCreate(u64 *stream, unsigned flags)
{
    CALL(CONTEXT);
    if (flags != 1)
        return bad(INVALID_VALUE, "a stream that waits for the default one");
    auto made = std::make_shared<Stream>();
    streams[*stream = next_handle++] = made;
    running.insert(made);
    std::thread(serve, made).detach();
    return SUCCESS;
}

int cuStreamDestroy_v2(u64 stream)
{
    CALL(CONTEXT);
    FIND(streams, stream, "stream");
    found_streams->second->destroyed = true;
    streams.erase(found_streams);
    changed.notify_all();
    return SUCCESS;
}

int cuStreamSynchronize(u64 stream)
{
    CALL(CONTEXT);
    FIND(streams, stream, "stream");
    auto waited = found_streams->second;
    await(hold, waited, waited->submitted);
    waited->pageable = false;
    return SUCCESS;
}

int cuEventCreate(u64 *event, unsigned flags)
{
    CALL(CONTEXT);
    events[*event = next_handle++] = {};
    return flags == 2 ? SUCCESS : bad(INVALID_VALUE, "an event that takes the time");
}

int cuEventDestroy_v2(u64 event)
{
    CALL(CONTEXT);
    FIND(events, event, "event");
    events.erase(found_events);
    return SUCCESS;
}

int cuEventRecord(u64 event, u64 stream)
{
    CALL(CONTEXT);
    FIND(events, event, "event");
    FIND(streams, stream, "stream");
    auto &of = found_streams->second;
    if (of->pageable)
        return bad(INVALID_VALUE, "an event behind a copy of memory that is not registered");
    found_events->second = {of, of->submitted};
    return SUCCESS;
}

int cuEventQuery(u64 event)
{
    CALL(CONTEXT);
    FIND(events, event, "event");
    auto &[stream, number] = found_events->second;
    return stream && stream->finished < number ? NOT_READY : SUCCESS;
}

int cuEventSynchronize(u64 event)
{
    CALL(CONTEXT);
    FIND(events, event, "event");
    auto [stream, number] = found_events->second;
    if (stream)
        await(hold, stream, number);
    return SUCCESS;
}

// ---- Copies

int cuMemcpyAsync(u64 to, u64 from, size_t len, u64 stream)
{
    CALL(CONTEXT);
    FIND(streams, stream, "stream");
    auto on = found_streams->second;
    Work work;
    Kind to_kind, from_kind;
    std::vector<Move> moves;
    std::vector<std::shared_ptr<void>> keep;
    if (int answer = plan(to, from, len, __func__, moves, keep, work, to_kind, from_kind))
        return answer;
    work.run = runner(moves, keep);
    if (int answer = submit(hold, on, work, __func__))
        return answer;
    on->pageable = to_kind == PAGEABLE || from_kind == PAGEABLE;
    if (to_kind == PAGEABLE)
        await(hold, on, on->submitted);
    return SUCCESS;
}

int cuMemcpyBatchAsync_v2(u64 *to, u64 *from, size_t *len, size_t count, CopyAttributes *attributes, size_t *first,
                          size_t attribute_count, u64 stream)
{
    CALL(CONTEXT);
    FIND(streams, stream, "stream");
    if (count == 0 || attribute_count != 1 || first[0] != 0 || attributes->source_order != 1 || attributes->flags)
        return bad(INVALID_VALUE, "a batch of %zu copies with other attributes", count);
    Work work;
    std::vector<Move> moves;
    std::vector<std::shared_ptr<void>> keep;
    std::map<u64, u64> targets;
    // In any order, so in a random one.
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; i++) {
        order[i] = i;
        std::swap(order[i], order[noise() % (i + 1)]);
    }
    for (size_t i : order) {
        Kind to_kind, from_kind;
        if (int answer = plan(to[i], from[i], len[i], __func__, moves, keep, work, to_kind, from_kind))
            return answer;
        if (to_kind == PAGEABLE || from_kind == PAGEABLE)
            return bad(INVALID_VALUE, "a batch copies memory that is not registered");
        if (!is_free(targets, {to[i], len[i]}, plain_len))
            return bad(INVALID_VALUE, "two copies of a batch write to %llx", to[i]);
        targets[to[i]] = len[i];
    }
    for (size_t i = 0; i < count; i++)
        if (!is_free(targets, {from[i], len[i]}, plain_len))
            return bad(INVALID_VALUE, "a batch reads at %llx what it writes", from[i]);
    work.run = runner(moves, keep);
    return submit(hold, found_streams->second, work, __func__);
}

// ---- The kernel

int cuModuleLoadData(u64 *module, const char *image)
{
    CALL(CONTEXT);
    if (!strstr(image, ".entry genie_gather"))
        return bad(INVALID_VALUE, "a module that is no gather kernel");
    modules.insert(*module = next_handle++);
    return SUCCESS;
}

int cuModuleGetFunction(u64 *function, u64 module, const char *name)
{
    CALL(CONTEXT);
    FIND(modules, module, "module");
    *function = module;
    return strcmp(name, "genie_gather") ? bad(NOT_FOUND, "no function %s", name) : SUCCESS;
}

int cuModuleUnload(u64 module)
{
    CALL(CONTEXT);
    FIND(modules, module, "module");
    modules.erase(found_modules);
    return SUCCESS;
}

int cuLaunchKernel(u64 function, unsigned grid, unsigned grid_y, unsigned grid_z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, u64 stream, void **values, void **extra)
{
    CALL(CONTEXT);
    FIND(modules, function, "function");
    FIND(streams, stream, "stream");
    if (!grid || threads != THREADS || grid_y * grid_z * threads_y * threads_z != 1 || shared || extra)
        return bad(INVALID_VALUE, "a launch of %u blocks of %u threads", grid, threads);
    u64 frames = *(u64 *)values[0], pieces = *(u64 *)values[1], verdicts = *(u64 *)values[2];
    Work work;
    // What the kernel will touch: the table lies in the host's memory.
    auto touches = [&](u64 at, u64 len) {
        std::vector<Bytes> found;
        Kind kind = DEVICE;
        work.uses.push_back({at, len});
        if (int answer = len ? resolve({at, len}, "the kernel", found, kind) : SUCCESS)
            return answer;
        return kind == PAGEABLE ? bad(INVALID_VALUE, "the kernel touches memory that is not registered") : SUCCESS;
    };
    if (int answer = touches(frames, grid * sizeof(Frame)))
        return answer;
    if (int answer = touches(verdicts, grid * sizeof(u32)))
        return answer;
    for (const Frame *frame = (const Frame *)frames; frame < (const Frame *)frames + grid; frame++) {
        if (int answer = touches(frame->data, frame->len))
            return answer;
        u64 first = pieces + frame->first_piece * sizeof(Piece);
        if (int answer = touches(first, frame->pieces * sizeof(Piece)))
            return answer;
        for (const Piece *piece = (const Piece *)first; piece < (const Piece *)first + frame->pieces; piece++)
            if (int answer = touches(piece->to, piece->len))
                return answer;
    }
    work.run = [=] { run_kernel(frames, pieces, verdicts, grid); };
    return submit(hold, found_streams->second, work, __func__);
}
}
