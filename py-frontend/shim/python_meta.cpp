// PyTorch's Python shape functions, imported when a C++ one is missing.
#include <atomic>

#include "infer.h"

namespace {

using ImportHook = int (*)();
std::atomic<ImportHook> import_hook{nullptr};

}  // namespace

// The import needs Python, which this library does not link.
extern "C" void genie_backend_set_meta_import_hook(int (*hook)(void)) {
  import_hook.store(hook);
}

namespace genie {

bool import_python_meta() {
  const ImportHook hook = import_hook.load();
  if (hook == nullptr) {
    return false;
  }
  // Python's own import lock serialises threads; a lock here could meet the GIL in a circle.
  static std::atomic<bool> imported{false};
  if (!imported.load()) {
    imported.store(hook() == 0);
  }
  return imported.load();
}

}  // namespace genie
