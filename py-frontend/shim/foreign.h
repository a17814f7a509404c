// Operators besides ATen's, of libraries that a program has loaded. A node that has loaded them, too, is
// sent records of them; else they run here.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/Device.h>

namespace genie {

// As genie_offers tells.
enum class Offered { No, Yes, Another };
Offered offered(const c10::OperatorHandle& handle, c10::Device device);

// A kernel for all of them.
void run_foreign(const c10::OperatorHandle& handle, torch::jit::Stack* stack);

}  // namespace genie
