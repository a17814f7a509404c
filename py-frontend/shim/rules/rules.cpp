#include "rules.h"

#include <string_view>

namespace genie {
namespace {

RuleTable make_table() {
  RuleTable table;
  add_asked_rules(table);
  add_attention_rules(table);
  add_convolution_rules(table);
  add_copy_rules(table);
  add_elementwise_rules(table);
  add_factory_rules(table);
  add_index_rules(table);
  add_normalisation_rules(table);
  add_recurrent_rules(table);
  add_reduction_rules(table);
  return table;
}

}  // namespace

void RuleTable::add(ShapeRule rule, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    rules_.emplace(name, rule);
  }
}

ShapeRule RuleTable::find(const std::string& name) const {
  const auto found = rules_.find(name);
  return found == rules_.end() ? nullptr : found->second;
}

ShapeRule find_rule(const c10::OperatorName& name) {
  static const RuleTable table = make_table();
  std::string key = name.name.substr(std::string_view("aten::").size());
  if (!name.overload_name.empty()) {
    key += "." + name.overload_name;
  }
  return table.find(key);
}

bool is_tensor(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined();
}

Sizes int_list(const c10::IValue& value) {
  Sizes sizes;
  for (const c10::IValue& item : value.toListRef()) {
    sizes.push_back(item.toInt());
  }
  return sizes;
}

c10::ScalarType dtype_or(const c10::IValue& value, c10::ScalarType otherwise) {
  return value.isNone() ? otherwise : static_cast<c10::ScalarType>(value.toInt());
}

void in_format(
    c10::ScalarType dtype,
    c10::IntArrayRef sizes,
    c10::MemoryFormat format,
    ResultBuilder& results) {
  if (format == c10::MemoryFormat::ChannelsLast && sizes.size() == 4) {
    results.fresh(dtype, sizes, c10::get_channels_last_strides_2d(sizes));
  } else if (format == c10::MemoryFormat::ChannelsLast3d && sizes.size() == 5) {
    results.fresh(dtype, sizes, c10::get_channels_last_strides_3d(sizes));
  } else {
    results.contiguous(dtype, sizes);
  }
}

}  // namespace genie
