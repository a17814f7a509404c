// Shape rules written by hand: for operators whose C++ shape function is missing or shadowed, and
// for those that PyTorch composes. Each gives what the CPU's kernel gives.
#pragma once

#include <initializer_list>
#include <string>
#include <unordered_map>

#include "../infer.h"

namespace genie {

// By operator and overload, without `aten::`.
class RuleTable {
 public:
  void add(ShapeRule rule, std::initializer_list<const char*> names);
  // Null if there is none.
  ShapeRule find(const std::string& name) const;

 private:
  std::unordered_map<std::string, ShapeRule> rules_;
};

// Each in a file of its own.
void add_asked_rules(RuleTable& table);
void add_attention_rules(RuleTable& table);
void add_convolution_rules(RuleTable& table);
void add_copy_rules(RuleTable& table);
void add_elementwise_rules(RuleTable& table);
void add_factory_rules(RuleTable& table);
void add_index_rules(RuleTable& table);
void add_normalisation_rules(RuleTable& table);
void add_recurrent_rules(RuleTable& table);
void add_reduction_rules(RuleTable& table);

// What several of them need.
using Sizes = c10::SmallVector<int64_t, 6>;

bool is_tensor(const c10::IValue& value);
Sizes int_list(const c10::IValue& value);
c10::ScalarType dtype_or(const c10::IValue& value, c10::ScalarType otherwise);
// Strides in a memory format, as `empty(..., memory_format=)` gives them.
void in_format(
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::MemoryFormat format,
    ResultBuilder& results);

}  // namespace genie
