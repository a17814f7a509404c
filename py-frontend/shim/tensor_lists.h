// Lists of tensors in a call's arguments and results.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <optional>

namespace genie {

// A list of `Tensor` or of `Tensor?`, or none, with `replace` called for each that is there.
template <typename Replace>
c10::IValue replace_tensors(const c10::IValue& list, const Replace& replace) {
  if (list.isNone()) {
    return list;
  }
  const auto items = list.toListRef();
  if (list.isTensorList()) {
    c10::List<at::Tensor> replaced;
    replaced.reserve(items.size());
    for (const c10::IValue& item : items) {
      replaced.push_back(replace(item.toTensor()));
    }
    return replaced;
  }
  c10::List<std::optional<at::Tensor>> replaced;
  replaced.reserve(items.size());
  for (const c10::IValue& item : items) {
    replaced.push_back(
        item.isNone() ? std::nullopt : std::optional<at::Tensor>(replace(item.toTensor())));
  }
  return replaced;
}

// Calls `body` for each tensor of a call's arguments, those in lists among them.
template <typename Body>
void for_each_tensor(c10::ArrayRef<c10::IValue> arguments, const Body& body) {
  for (const c10::IValue& argument : arguments) {
    if (argument.isTensor()) {
      body(argument.toTensor());
    } else if (argument.isTensorList()) {
      for (const c10::IValue& item : argument.toListRef()) {
        body(item.toTensor());
      }
    }
  }
}

}  // namespace genie
