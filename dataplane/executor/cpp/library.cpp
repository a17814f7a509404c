// Operator libraries: shared objects that define operators as they are loaded.

#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "dispatch.h"
#include "error.h"
#include "schema_kind.h"

namespace {

// What there was before a library, and what its last one added.
std::set<std::string> known_names;
std::set<std::string, std::less<>> own_namespaces;
std::vector<GenieLibraryOperator> added;
std::vector<std::string> added_texts;

std::string_view namespace_of(std::string_view name) {
  return name.substr(0, name.find("::"));
}

// True if a record can carry a call of it: see ArgKind, and no result is a view.
bool is_carried(const c10::FunctionSchema& schema) {
  const auto carried = [](const c10::Argument& argument) {
    const bool is_view = argument.alias_info() != nullptr && !argument.alias_info()->isWrite();
    return !is_view && genie::kind_of(*argument.real_type()) != genie::ArgKind::Unsupported;
  };
  return !schema.is_vararg() && !schema.is_varret() &&
      std::all_of(schema.arguments().begin(), schema.arguments().end(), carried) &&
      std::all_of(schema.returns().begin(), schema.returns().end(), carried);
}

void remember_known() {
  if (!own_namespaces.empty()) {
    return;
  }
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    known_names.insert(toString(name));
    own_namespaces.emplace(namespace_of(name.name));
  }
}

} // namespace

extern "C" {

int genie_load_shared(const char* path) {
  return genie::guarded([&] {
    // All symbols at once: what is missing is told now, and not by an executor that dies of it.
    TORCH_CHECK(dlopen(path, RTLD_NOW | RTLD_GLOBAL) != nullptr, dlerror());
  });
}

int genie_library_load(const char* path) {
  return genie::guarded([&] {
    remember_known();
    added.clear();
    added_texts.clear();
    TORCH_CHECK(dlopen(path, RTLD_NOW | RTLD_GLOBAL) != nullptr, dlerror());
    auto& dispatcher = c10::Dispatcher::singleton();
    for (const auto& name : dispatcher.getAllOpNames()) {
      const auto op = dispatcher.findSchema(name);
      if (!op.has_value() || !known_names.insert(toString(name)).second) {
        continue;
      }
      TORCH_CHECK(
          own_namespaces.find(namespace_of(name.name)) == own_namespaces.end(),
          "it defines ", toString(name), ", in a namespace of libtorch's own");
      std::ostringstream schema;
      schema << op->schema();
      added_texts.push_back(toString(name));
      added_texts.push_back(schema.str());
      added.push_back({nullptr, nullptr, is_carried(op->schema()) ? 1 : 0});
    }
    for (size_t i = 0; i < added.size(); i++) {
      added[i].name = added_texts[2 * i].c_str();
      added[i].schema = added_texts[2 * i + 1].c_str();
    }
  });
}

const GenieLibraryOperator* genie_library_operators(size_t* len) {
  *len = added.size();
  return added.data();
}

} // extern "C"
