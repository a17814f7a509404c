// What the simulated driver has given out and noted, and what tests ask of it.

#pragma once

#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "on_cpu.cpp"

enum : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ALREADY_REGISTERED = 712,
    NOT_REGISTERED = 713,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    UNKNOWN = 999,
};

static const u64 PAGE = 2 << 20;
static const u64 HOST_PAGE = 4096;

struct Span {
    u64 at, len;
    bool meets(Span other) const { return at < other.at + other.len && other.at < at + len; }
    bool holds(Span other) const { return at <= other.at && other.at + other.len <= at + len; }
};

// As cuda.h lays it out.
struct Location {
    int type, id;
};

// Memory of the device, or of another process that exported it. Freed with its last handle and mapping.
struct Backing {
    int file;
    byte *bytes;
    u64 len;
    bool ours;
    ~Backing();
};
struct Mapped {
    u64 len;
    std::shared_ptr<Backing> backing;
    bool accessible;
};
struct Work {
    std::vector<Span> uses;
    std::function<void()> run;
};
struct Stream {
    std::deque<Work> work;
    u64 submitted = 0, finished = 0;
    bool destroyed = false;
    // Its last work copies pageable memory, and nobody has waited for it.
    bool pageable = false;
};
struct Event {
    std::shared_ptr<Stream> stream;
    u64 number = 0;
};

static std::mutex lock;
// Never destroyed: streams that nobody gave back still wait for it when the process ends.
static std::condition_variable &changed = *new std::condition_variable;
static int primary;
static thread_local void *current;
static bool initialised;
static u64 retained, memory_max, seed, next_handle = 0x1000;
static std::atomic<u64> used;
static std::map<u64, u64> reserved, registered;
static std::map<u64, Mapped> mapped;
static std::map<u64, std::shared_ptr<Backing>> handles;
static std::map<u64, std::shared_ptr<Stream>> streams;
static std::map<u64, Event> events;
static std::set<u64> modules;
static std::set<std::shared_ptr<Stream>> running;
static std::map<int, int> attributes;
static std::vector<std::string> violations, refusals;
// In a program that knows nothing of it: violations are told at once, and the CPU reaches what the
// device was given access to, since operators run there.
static bool alone;
static std::map<std::string, u64> calls;
static std::string failing;
static u64 failing_in;
static bool fails_for_ever, failed, broken;
static enum Pace { LATE, HELD } pace;

Backing::~Backing()
{
    munmap(bytes, len);
    close(file);
    used -= ours ? len : 0;
}

__attribute__((format(printf, 3, 4))) static int noted(std::vector<std::string> &list, int code, const char *format, ...)
{
    char text[256];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (alone && &list == &violations)
        fprintf(stderr, "simulated CUDA: violation: %s\n", text);
    list.push_back(text);
    return code;
}
#define bad(...) noted(violations, __VA_ARGS__)
#define refuse(...) noted(refusals, __VA_ARGS__)

static u64 noise()
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

enum Needs { NOTHING, DRIVER, CONTEXT };

static int entered(const char *name, Needs needs)
{
    calls[name]++;
    if (broken && needs != NOTHING)
        return LAUNCH_FAILED;
    if (failing == name && --failing_in == 0) {
        failed = true;
        failing.clear();
        broken = fails_for_ever;
        return broken ? LAUNCH_FAILED : UNKNOWN;
    }
    if (!initialised && needs != NOTHING)
        return bad(NOT_INITIALIZED, "%s before cuInit", name);
    if (needs == CONTEXT && !(current == &primary && retained > 0))
        return bad(INVALID_CONTEXT, "%s without a current context", name);
    return SUCCESS;
}

#define CALL(needs)                                \
    std::unique_lock<std::mutex> hold(lock);       \
    if (int answer = entered(__func__, needs))     \
    return answer

static bool is_used(Span span)
{
    for (auto &stream : running)
        for (auto &work : stream->work)
            for (auto use : work.uses)
                if (use.meets(span))
                    return true;
    return false;
}

template <typename Value> static bool is_free(const std::map<u64, Value> &ranges, Span span, u64 (*len)(const Value &))
{
    auto after = ranges.lower_bound(span.at + span.len);
    return after == ranges.begin() || !span.meets({std::prev(after)->first, len(std::prev(after)->second)});
}
static u64 plain_len(const u64 &len) { return len; }
static u64 mapped_len(const Mapped &mapped) { return mapped.len; }

#define FIND(map, id, what)                                             \
    auto found_##map = map.find((u64)(id));                             \
    if (found_##map == map.end())                                       \
    return bad(INVALID_HANDLE, "%s: no such " what, __func__)

extern "C" {

// Forgets everything, and starts anew with so much memory.
void simulated_start(u64 memory_bytes, u64 number)
{
    std::unique_lock<std::mutex> hold(lock);
    pace = LATE;
    for (auto &stream : running)
        stream->destroyed = true;
    changed.notify_all();
    changed.wait(hold, [] { return running.empty(); });
    for (auto &[at, len] : reserved)
        munmap((void *)at, len);
    initialised = failed = broken = fails_for_ever = false;
    retained = failing_in = 0;
    memory_max = memory_bytes;
    seed = number | 1;
    failing.clear();
    reserved.clear(), registered.clear(), mapped.clear(), handles.clear(), streams.clear(), events.clear();
    modules.clear(), violations.clear(), refusals.clear(), calls.clear();
    attributes = {{16, 2}, {75, 9}, {76, 0}, {91, 1}, {102, 1}, {103, 1}, {110, 1}, {115, 1}};
}

// GENIE_SIMULATED_CUDA=1 in a program's environment is all that it takes.
static bool begin_alone()
{
    const char *wanted = getenv("GENIE_SIMULATED_CUDA");
    if (!wanted || strcmp(wanted, "1") != 0)
        return false;
    simulated_start(8ull << 30, (u64)getpid());
    fprintf(stderr, "simulated CUDA: there is no GPU, and operators run on the CPU\n");
    return true;
}

void simulated_attribute(int attribute, int value)
{
    std::unique_lock<std::mutex> hold(lock);
    attributes[attribute] = value;
}

// Work is late, or not done at all.
void simulated_pace(int number)
{
    std::unique_lock<std::mutex> hold(lock);
    pace = (Pace)number;
    changed.notify_all();
}

// Lets the call of this name fail that comes `number`th from now; for ever: and everything after it.
void simulated_fail(const char *name, u64 number, int for_ever)
{
    std::unique_lock<std::mutex> hold(lock);
    failing = name, failing_in = number, fails_for_ever = for_ever, failed = false;
}

int simulated_has_failed()
{
    std::unique_lock<std::mutex> hold(lock);
    return failed;
}

// 0: violations, 1: refusals, a line each. 2: what is alive, 3: calls: a name and a count a line.
size_t simulated_text(int what, char *text, size_t len)
{
    std::unique_lock<std::mutex> hold(lock);
    std::string all;
    auto count = [&](const std::string &name, u64 number) {
        if (number)
            all += name + " " + std::to_string(number) + "\n";
    };
    if (what < 2)
        for (auto &line : what ? refusals : violations)
            all += line + "\n";
    if (what == 2) {
        // A stream that was destroyed ends when its work does.
        changed.wait(hold, [] { return running.size() == streams.size(); });
        count("contexts", retained), count("reservations", reserved.size()), count("mappings", mapped.size());
        count("handles", handles.size()), count("registrations", registered.size()), count("streams", streams.size());
        count("events", events.size()), count("modules", modules.size()), count("bytes", used);
    }
    if (what == 3)
        for (auto &[name, number] : calls)
            count(name, number);
    snprintf(text, len, "%s", all.c_str());
    return all.size();
}

}

// Begun here, when everything above is there.
static const bool begun = alone = begin_alone();
