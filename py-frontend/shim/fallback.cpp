#include "fallback.h"

#include <ATen/native/CPUFallback.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <string>

#include "backend.h"

namespace genie {

void warn_of_fallback(const c10::OperatorHandle& op) {
  const c10::OperatorName& name = op.operator_name();
  const std::string full =
      name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
  if (genie_count_fallback(full.c_str()) != 0) {
    TORCH_WARN(
        full,
        " is not an operator that ",
        kDeviceName,
        " has; it runs on this machine's CPU, with its tensors copied there and back");
  }
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  warn_of_fallback(op);
  at::native::cpu_fallback(op, stack);
}

void register_fallback() {
  static torch::Library library(
      torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

}  // namespace genie
