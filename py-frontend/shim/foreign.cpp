#include "foreign.h"

#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <unordered_map>

#include "backend.h"
#include "errors.h"
#include "fallback.h"
#include "parts.h"
#include "record.h"
#include "tensor_lists.h"

namespace genie {
namespace {

// What is known of an operator, once a process.
struct Foreign {
  explicit Foreign(const c10::OperatorHandle& handle) : name(toString(handle.operator_name())) {
    std::ostringstream text;
    text << handle.schema();
    schema = text.str();
  }

  std::string name;
  std::string schema;
  // Made when a node has it.
  std::unique_ptr<const Operator> op;
  std::once_flag made;
};

Foreign& known(const c10::OperatorHandle& handle) {
  static std::mutex mutex;
  // As many as there are operators. Never destroyed: they are for the life of the process.
  static auto& all = *new std::unordered_map<c10::OperatorName, std::unique_ptr<Foreign>>;
  const std::lock_guard lock(mutex);
  auto& found = all[handle.operator_name()];
  if (!found) {
    found = std::make_unique<Foreign>(handle);
  }
  return *found;
}

Offered offered_by(const Foreign& foreign, c10::Device device) {
  return static_cast<Offered>(
      genie_offers(device.index(), foreign.name.c_str(), foreign.schema.c_str()));
}

// Whether this machine's CPU has a kernel of it, of whatever kind.
bool runs_here(const c10::OperatorHandle& handle) {
  using c10::DispatchKey;
  for (const DispatchKey key :
       {DispatchKey::CPU, DispatchKey::SparseCPU, DispatchKey::SparseCsrCPU,
        DispatchKey::NestedTensorCPU, DispatchKey::QuantizedCPU,
        DispatchKey::CompositeImplicitAutograd, DispatchKey::CompositeExplicitAutograd,
        DispatchKey::CompositeExplicitAutogradNonFunctional}) {
    if (handle.hasKernelForDispatchKey(key)) {
      return true;
    }
  }
  return false;
}

}  // namespace

Offered offered(const c10::OperatorHandle& handle, c10::Device device) {
  return offered_by(known(handle), device);
}

void run_foreign(const c10::OperatorHandle& handle, torch::jit::Stack* stack) {
  check(genie_usable());
  const auto arguments = torch::jit::last(stack, handle.schema().arguments().size());
  const c10::Device device = device_of(arguments).value_or(c10::Device(kRemote, current_device()));
  // All that a record carries.
  bool is_carried = true;
  for_each_tensor(arguments, [&](const at::Tensor& tensor) {
    is_carried = is_carried && (!tensor.defined() || is_plain(tensor));
  });
  Foreign& foreign = known(handle);
  if (!is_carried || offered_by(foreign, device) != Offered::Yes) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        runs_here(handle),
        foreign.name,
        " has no kernel on this machine, and the node has none of this schema: start the node with the "
        "library that defines it (`--operator-library`), or import what defines it here");
    run_on_cpu(handle, stack);
    return;
  }
  std::call_once(foreign.made, [&] { foreign.op = std::make_unique<const Operator>(handle); });
  record(*foreign.op, *stack);
}

}  // namespace genie
