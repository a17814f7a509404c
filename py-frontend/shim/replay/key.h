// What decides whether calls that a program made once are right for other inputs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "recorder.h"

namespace genie::replay {

// Whether autograd has nothing to do with what is called now: it makes no graph, forward mode has no level
// open, and no transform is under way that would have it differentiate.
bool is_without_autograd();

// What a tensor is besides its elements: sizes, strides, type and the like.
void describe(const at::Tensor& tensor, std::vector<int64_t>& words);

// Whether it has a layout that sizes and strides do not tell, or Python behind it.
bool is_special(const at::Tensor& tensor);

// Whether it is dense, strided and of one of our storages; its handle is that.
bool is_plain(const at::Tensor& tensor);

struct Key {
  // Where is_without_autograd(). None where a call may do more than it did before, for any reason that is not one of its inputs.
  static std::optional<Key> of(c10::ArrayRef<at::Tensor> inputs, const std::vector<int64_t>& numbers);

  uint64_t hash() const;

  std::vector<int64_t> words;
  // The storages of the inputs, each once: their slots are their places here.
  std::vector<GenieStorage> storages;
  c10::DeviceIndex device = -1;

  static constexpr uint32_t NO_SLOT = UINT32_MAX;
};

}  // namespace genie::replay
