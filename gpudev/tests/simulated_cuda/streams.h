// Streams, each served by a thread, and where the CPU finds what a copy names.

#pragma once

#include "books.h"

static void serve(std::shared_ptr<Stream> stream)
{
    std::unique_lock<std::mutex> hold(lock);
    for (;;) {
        changed.wait(hold, [&] { return pace != HELD && (stream->destroyed || !stream->work.empty()); });
        if (stream->work.empty())
            break;
        auto run = stream->work.front().run;
        u64 late_us = noise() % 2 ? 0 : noise() % (noise() % 16 ? 200 : 5000);
        hold.unlock();
        usleep(late_us);
        run();
        run = nullptr;
        hold.lock();
        stream->work.pop_front();
        stream->finished++;
        changed.notify_all();
    }
    running.erase(stream);
    changed.notify_all();
}

static void await(std::unique_lock<std::mutex> &hold, std::shared_ptr<Stream> stream, u64 number)
{
    changed.wait(hold, [&] { return stream->finished >= number; });
}

// What is put on a stream behind a copy of pageable memory would mean that nobody waits for that.
static int submit(std::unique_lock<std::mutex> &hold, std::shared_ptr<Stream> stream, Work work, const char *name)
{
    if (stream->pageable)
        return bad(INVALID_VALUE, "%s behind a copy of memory that is not registered", name);
    stream->work.push_back(std::move(work));
    stream->submitted++;
    changed.notify_all();
    return SUCCESS;
}

struct Bytes {
    byte *at;
    u64 len;
    std::shared_ptr<Backing> backing;
};
enum Kind { DEVICE, REGISTERED, PAGEABLE };

// Where the CPU finds what the device sees at these addresses.
static int resolve(Span span, const char *name, std::vector<Bytes> &found, Kind &kind)
{
    auto after = reserved.upper_bound(span.at);
    if (after != reserved.begin() && span.at < std::prev(after)->first + std::prev(after)->second) {
        kind = DEVICE;
        for (u64 at = span.at, end = span.at + span.len; at < end;) {
            auto next = mapped.upper_bound(at);
            if (next == mapped.begin() || at >= std::prev(next)->first + std::prev(next)->second.len)
                return bad(INVALID_VALUE, "%s: nothing is mapped at %llx", name, at);
            auto &[start, map] = *std::prev(next);
            if (!map.accessible)
                return bad(INVALID_VALUE, "%s: no access to %llx", name, at);
            u64 len = std::min(end, start + map.len) - at;
            found.push_back({map.backing->bytes + (at - start), len, map.backing});
            at += len;
        }
        return SUCCESS;
    }
    kind = PAGEABLE;
    for (auto [start, len] : registered)
        if (Span{start, len}.meets(span)) {
            kind = REGISTERED;
            if (!Span{start, len}.holds(span))
                return bad(INVALID_VALUE, "%s over the border of a registration", name);
        }
    found.push_back({(byte *)span.at, span.len, nullptr});
    return SUCCESS;
}

struct Move {
    byte *to;
    const byte *from;
    u64 len;
};

// One copy as moves of the CPU. Device memory that goes meanwhile is kept for them.
static int plan(u64 to, u64 from, u64 len, const char *name, std::vector<Move> &moves,
                std::vector<std::shared_ptr<void>> &keep, Work &work, Kind &to_kind, Kind &from_kind)
{
    std::vector<Bytes> targets, sources;
    if (len == 0)
        return bad(INVALID_VALUE, "%s of nothing", name);
    if (Span{to, len}.meets({from, len}))
        return bad(INVALID_VALUE, "%s over itself", name);
    if (int answer = resolve({to, len}, name, targets, to_kind))
        return answer;
    if (int answer = resolve({from, len}, name, sources, from_kind))
        return answer;
    if (from_kind == PAGEABLE) {
        // As the driver does: such memory is staged in the call.
        auto staged = std::make_shared<std::vector<byte>>((byte *)from, (byte *)from + len);
        sources[0].at = staged->data();
        keep.push_back(staged);
    }
    for (size_t at = 0, of = 0; at < targets.size();) {
        auto &target = targets[at], &source = sources[of];
        u64 part = std::min(target.len, source.len);
        moves.push_back({target.at, source.at, part});
        keep.push_back(target.backing);
        keep.push_back(source.backing);
        target.at += part, source.at += part;
        at += (target.len -= part) == 0;
        of += (source.len -= part) == 0;
    }
    work.uses.push_back({to, len});
    work.uses.push_back({from, len});
    return SUCCESS;
}

static std::function<void()> runner(std::vector<Move> moves, std::vector<std::shared_ptr<void>> keep)
{
    return [moves, keep] {
        for (auto move : moves)
            memcpy(move.to, move.from, move.len);
    };
}

// The kernel reads and writes the device's own addresses, so they are opened to the CPU for that long.
static void run_kernel(u64 frames, u64 pieces, u64 verdicts, u32 count)
{
    std::unique_lock<std::mutex> hold(lock);
    for (auto &[at, map] : mapped)
        if (map.accessible)
            mprotect((void *)at, map.len, PROT_READ | PROT_WRITE);
    genie_gather_on_cpu(frames, pieces, verdicts, count);
    for (auto &[at, map] : mapped)
        mprotect((void *)at, map.len, PROT_NONE);
}
