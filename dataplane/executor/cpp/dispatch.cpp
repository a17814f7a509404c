#include "dispatch.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <unordered_map>

#include "arguments.h"
#include "invoke.h"
#include "results.h"
#include "schema_hash.h"

namespace {

thread_local std::string last_error;

void release(std::vector<GenieStorage*>& storages) {
  for (GenieStorage* storage : storages) {
    genie_storage_free(storage);
  }
  storages.clear();
}

// Runs the operator on the arguments of `call`; `stack` holds the results afterwards.
void run(
    const genie::Operator& op,
    const GenieCall& call,
    torch::jit::Stack& stack,
    std::vector<c10::TensorImpl*>* tensors) {
  genie::build(op, call, stack, tensors);
  genie::invoke(op, call, stack);
}

const genie::Operator& operator_of(const GenieOperator* op) {
  return *reinterpret_cast<const genie::Operator*>(op);
}

} // namespace

int genie::fail(int code, std::string message) {
  last_error = std::move(message);
  return code;
}

extern "C" {

const char* genie_last_error(size_t* len) {
  *len = last_error.size();
  return last_error.data();
}

uint64_t genie_schema_hash(void) {
  try {
    return genie::schema_hash();
  } catch (...) {
    return 0;
  }
}

int genie_operator_exists(const char* name, const char* overload) {
  try {
    return c10::Dispatcher::singleton().findSchema({name, overload}).has_value() ? 1 : 0;
  } catch (...) {
    return 0;
  }
}

int genie_operator_find(const char* name, const char* overload, const GenieOperator** found) {
  // Operators are resolved once a process and never forgotten: their number is bounded.
  static std::unordered_map<std::string, std::unique_ptr<genie::Operator>> resolved;
  return genie::guarded([&] {
    const std::string key = std::string(name) + "." + overload;
    auto& slot = resolved[key];
    if (!slot) {
      auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
      TORCH_CHECK_NOT_IMPLEMENTED(handle, key, " is not an operator of this libtorch");
      slot = std::make_unique<genie::Operator>(genie::resolve(*handle));
    }
    *found = reinterpret_cast<const GenieOperator*>(slot.get());
  });
}

int genie_call(const GenieOperator* op, const GenieCall* call, GenieStorage** fresh) {
  static thread_local torch::jit::Stack stack;
  static thread_local std::vector<GenieStorage*> taken;
  const int code = genie::guarded([&] {
    run(operator_of(op), *call, stack, nullptr);
    genie::bind_predicted(operator_of(op), *call, stack, taken);
  });
  stack.clear();
  if (code == 0) {
    std::copy(taken.begin(), taken.end(), fresh);
    taken.clear();
  } else {
    release(taken);
  }
  return code;
}

int genie_call_sync(
    const GenieOperator* op,
    const GenieCall* call,
    uint64_t reserved,
    GenieStorage** fresh,
    size_t* fresh_len,
    GenieMetas* metas) {
  static thread_local genie::Described described;
  described.out.clear();
  described.out_params.clear();
  described.value.clear();
  described.value_data.clear();
  torch::jit::Stack stack;
  std::vector<c10::TensorImpl*> arguments;
  // The arguments stay alive to be recognised among the results.
  const int code = genie::guarded([&] {
    const auto& resolved = operator_of(op);
    genie::build(resolved, *call, stack, &arguments);
    const torch::jit::Stack keep = stack;
    genie::invoke(resolved, *call, stack);
    genie::describe(resolved, stack, arguments, reserved, described);
  });
  if (code != 0) {
    release(described.fresh);
    return code;
  }
  stack.clear();
  *fresh_len = described.fresh.size();
  std::copy(described.fresh.begin(), described.fresh.end(), fresh);
  described.fresh.clear();
  *metas = GenieMetas{
      described.out.data(),
      described.out.size(),
      described.out_params.data(),
      described.out_params.size(),
      described.value.data(),
      described.value.size(),
      described.value_data.data(),
      described.value_data.size(),
  };
  return 0;
}

} // extern "C"
