// What libtorch does not check before it reads and writes: arguments that its kernels trust. What is
// checked of which operator is said in ../checks.txt.
#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>

#include <memory>
#include <string>

namespace genie {

class Checks;

// Those of an operator; throws where the table's line does not fit it.
std::shared_ptr<const Checks> checks_of(const std::string& name, const c10::FunctionSchema& schema);

// Gives the operator a row-major copy of arguments whose strides its kernel does not follow.
void lay_out(const Checks& checks, torch::jit::Stack& arguments);

// Throws where the operator would reach outside of its tensors.
void check_arguments(const Checks& checks, const torch::jit::Stack& arguments);

// Throws where a result, or an argument that the operator may have made anew, reaches outside of
// its storage.
void check_results(const torch::jit::Stack& results, const torch::jit::Stack& arguments);

} // namespace genie
