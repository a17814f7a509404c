// Python code that runs in the midst of a kernel: handlers of signals, while a call waits.
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "recorder.h"

// A kernel is called with autograd switched off on its thread. What a handler computes is the
// program's own, and is to have its gradients.
extern "C" int32_t genie_backend_outside(int32_t (*look)(void)) {
  const c10::impl::LocalDispatchKeySet inside = c10::impl::tls_local_dispatch_key_set();
  c10::impl::LocalDispatchKeySet outside = inside;
  if (!c10::InferenceMode::is_enabled()) {
    outside.excluded_ = outside.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
  }
  c10::impl::_force_tls_local_dispatch_key_set(outside);
  const int32_t result = look();
  c10::impl::_force_tls_local_dispatch_key_set(inside);
  return result;
}
