#include "threads.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "dispatch.h"

namespace genie {
namespace {

// Waking a thread and waiting for it takes about this, and some more for each.
constexpr double TEAM_NS = 60e3;
constexpr double MEMBER_NS = 4e3;
// Between two looks at what others do.
constexpr double LOOK_SECONDS = 0.1;

struct Chooser {
  // The most there may be.
  int most = 1;
  // Of them, those with a core to run on. OpenMP ends and starts threads when a team of another
  // size works (though not for one thread), so it changes by halves and not at every breath.
  int team = 1;
  // Threads that libtorch was told last.
  int told = 0;
  bool fixed = false;
  double looked_at = 0;
  double idle = 0;
  double own = 0;
};

Chooser chooser;
// omp_set_num_threads of the OpenMP that libtorch has, if it has one.
void (*set_num_threads)(int) = nullptr;
// /proc/stat. Opened before executors lose the right to.
int stat_file = -1;

double seconds(clockid_t clock) {
  timespec at{};
  clock_gettime(clock, &at);
  return static_cast<double>(at.tv_sec) + static_cast<double>(at.tv_nsec) * 1e-9;
}

// Seconds that all cores were idle so far; negative where nobody tells.
double idle_seconds() {
  char text[256];
  const ssize_t n = stat_file < 0 ? -1 : pread(stat_file, text, sizeof text - 1, 0);
  if (n <= 0) {
    return -1;
  }
  text[n] = 0;
  unsigned long long idle = 0;
  unsigned long long waiting = 0;
  if (sscanf(text, "cpu %*u %*u %*u %llu %llu", &idle, &waiting) != 2) {
    return -1;
  }
  static const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  return static_cast<double>(idle + waiting) / ticks;
}

void look() {
  const double now = seconds(CLOCK_MONOTONIC);
  const double elapsed = now - chooser.looked_at;
  if (elapsed < LOOK_SECONDS) {
    return;
  }
  const double idle = idle_seconds();
  const double own = seconds(CLOCK_PROCESS_CPUTIME_ID);
  if (chooser.looked_at > 0 && idle >= 0) {
    // Cores that were idle, or ours.
    const double free = (idle - chooser.idle + own - chooser.own) / elapsed;
    while (chooser.team > 1 && free < 0.7 * chooser.team) {
      chooser.team = (chooser.team + 1) / 2;
    }
    while (chooser.team < chooser.most &&
           free >= 0.85 * std::min(2 * chooser.team, chooser.most)) {
      chooser.team = std::min(2 * chooser.team, chooser.most);
    }
  }
  chooser.looked_at = now;
  chooser.idle = idle;
  chooser.own = own;
}

void tell(int threads) {
  if (threads != chooser.told) {
    // Not at::set_num_threads where it can be helped: that forbids MKL to use fewer threads, so a
    // product within a team (attention makes thousands) opens a team of one, and ends it by two
    // system calls.
    if (set_num_threads != nullptr) {
      set_num_threads(threads);
    } else {
      at::set_num_threads(threads);
    }
    chooser.told = threads;
  }
}

} // namespace

void start_threads(uint32_t wanted) {
  chooser = Chooser{};
  set_num_threads =
      reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  chooser.fixed = wanted > 0;
  chooser.most = wanted > 0 ? static_cast<int>(wanted) : std::max(1, at::get_num_threads());
  chooser.team = chooser.most;
  look();
  tell(1);
}

void choose_threads(double ns) {
  if (ns < TEAM_NS + MEMBER_NS * chooser.team) {
    tell(1);
    return;
  }
  if (!chooser.fixed) {
    look();
  }
  tell(chooser.team);
}

} // namespace genie

void genie_watch_cores(void) {
  if (genie::stat_file < 0) {
    genie::stat_file = open("/proc/stat", O_RDONLY | O_CLOEXEC);
  }
}
