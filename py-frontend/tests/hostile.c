// Stands in for a client that runs code of its own in an executor: loaded in front of libm, it makes
// the call that an argument of `pow` names, in the middle of an operator (torch.special.zeta).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char** environ;

// The base of the zeta function that asks for it.
static const double MAGIC = 31337.0;

static double opened(const char* path) {
  int file = open(path, O_RDONLY);
  return file < 0 ? errno : 0;
}

static double secrets(void) {
  double found = 0;
  for (char** each = environ; *each; ++each) {
    found += strstr(*each, "SECRET") != NULL;
  }
  return found;
}

// Where the library that called is mapped.
static double base(void* inside) {
  Dl_info info;
  return dladdr(inside, &info) ? (double)((unsigned long)info.dli_fbase >> 12) : 0;
}

static double act(long code, void* caller) {
  switch (code) {
    case 2:
      return opened("/etc/passwd");
    case 3:
      return opened("/proc/self/environ");
    case 4:
      return secrets();
    case 5:
      return getuid();
    case 6:
      return getppid();
    case 7:
      return base(caller);
    case 8:
      abort();
    case 9:
      return opened("/proc/1/mem");
    case 10:
      return opened("/dev/urandom");
    case 11:
      return signal(SIGSYS, SIG_IGN) == SIG_ERR ? errno : 0;
    default:
      // The kernel's own answer; arguments that mean the least.
      return syscall(code - 1000, 0, 0, 0, 0, 0, 0) < 0 ? errno : 0;
  }
}

double pow(double x, double y) {
  static double (*real)(double, double);
  if (x == MAGIC) {
    // Large, so that the series that it begins adds nothing to it.
    return 1e15 + act((long)-y, __builtin_return_address(0));
  }
  if (!real) {
    real = (double (*)(double, double))dlsym(RTLD_NEXT, "pow");
  }
  return real(x, y);
}
