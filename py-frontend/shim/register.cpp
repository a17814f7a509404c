// What the recorder calls once, before the first use of the device.
#include <c10/util/Exception.h>

#include <exception>
#include <mutex>
#include <string>

#include "../../dataplane/executor/cpp/schema_hash.h"
#include "backend.h"

extern "C" const char* genie_backend_register(void) {
  static std::once_flag once;
  static std::string failure;
  try {
    std::call_once(once, [] {
      genie::register_guard();
      genie::register_allocator();
      genie::register_hooks();
      genie::register_recorded_operators();
      genie::register_kernels();
      genie::register_split();
      genie::register_recurrent();
      genie::register_layouts();
      genie::register_fallback();
      genie::register_autocast();
      genie::register_module_ops();
      genie::register_replay();
    });
  } catch (const c10::Error& error) {
    failure = error.what_without_backtrace();
    return failure.c_str();
  } catch (const std::exception& error) {
    failure = error.what();
    return failure.c_str();
  }
  return nullptr;
}

extern "C" uint64_t genie_backend_schema_hash(void) {
  try {
    return genie::schema_hash();
  } catch (const std::exception&) {
    return 0;  // no node has it, so a session is refused
  }
}
