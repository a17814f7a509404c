// Automatic mixed precision: the cast lists that PyTorch uses for CUDA.
#include <ATen/Operators.h>
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "backend.h"

namespace genie {

// PyTorch's registration macros spell its names without their namespaces.
using namespace at;  // NOLINT(google-build-using-namespace)

#define GENIE_LOWER_PRECISION_FP(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define GENIE_FP32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define GENIE_FP32_SET_OPT_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define GENIE_PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)

void register_autocast() {
  static torch::Library everything(
      torch::Library::IMPL, "_", c10::DispatchKey::AutocastPrivateUse1, __FILE__, __LINE__);
  everything.fallback(torch::CppFunction::makeFallthrough());

  static torch::Library m(
      torch::Library::IMPL, "aten", c10::DispatchKey::AutocastPrivateUse1, __FILE__, __LINE__);
  AT_FORALL_LOWER_PRECISION_FP(GENIE_LOWER_PRECISION_FP)
  AT_FORALL_FP32(GENIE_FP32)
  AT_FORALL_FP32_SET_OPT_DTYPE(GENIE_FP32_SET_OPT_DTYPE)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(GENIE_PROMOTE)
}

}  // namespace genie
