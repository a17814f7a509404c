// A call's arguments as a skeleton and number streams (controlplane/session/src/skeleton.rs).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "backend.h"
#include "operator.h"

namespace genie {

// A growing array that keeps its memory; room is asked for once per argument, not per element.
template <typename T>
class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    std::free(begin_);
  }

  void clear() noexcept {
    end_ = begin_;
  }
  T* reserve(size_t extra) {
    if (C10_UNLIKELY(static_cast<size_t>(limit_ - end_) < extra)) {
      grow(extra);
    }
    return end_;
  }
  void push(T value) {
    *reserve(1) = value;
    ++end_;
  }
  // Tells how much of what reserve() gave was filled.
  void filled_to(T* end) noexcept {
    end_ = end;
  }
  const T* data() const noexcept {
    return begin_;
  }
  size_t size() const noexcept {
    return static_cast<size_t>(end_ - begin_);
  }
  T operator[](size_t i) const noexcept {
    return begin_[i];
  }

 private:
  C10_NOINLINE void grow(size_t extra) {
    const size_t used = size();
    const size_t capacity = 2 * (used + extra) + 64;
    void* const memory = std::realloc(static_cast<void*>(begin_), capacity * sizeof(T));
    if (memory == nullptr) {
      throw std::bad_alloc();
    }
    begin_ = static_cast<T*>(memory);
    end_ = begin_ + used;
    limit_ = begin_ + capacity;
  }

  T* begin_ = nullptr;
  T* end_ = nullptr;
  T* limit_ = nullptr;
};

// What a call takes once, however often it is encoded: its seed, and the number that autograd gave
// last when the call began.
struct Seeds {
  int64_t value = 0;
  int64_t sequence_nr = -1;
};

class Encoder {
 public:
  // Encodes a call. Valid until the next; the tensors are borrowed from the arguments.
  void encode(const Operator& op, Arguments arguments, Seeds seeds);

  const GenieCall& call() const noexcept {
    return call_;
  }
  // The tensor arguments, in order.
  c10::TensorImpl* tensor(size_t index) const {
    TORCH_INTERNAL_ASSERT(index < tensors_.size());
    return tensors_[index];
  }
  // Which tensor an argument (or a list's first item) is.
  size_t tensor_index(size_t argument) const noexcept {
    return first_tensor_[argument];
  }
  // The device that the call runs on.
  c10::DeviceIndex device() const noexcept {
    return device_ < 0 ? current_device() : device_;
  }

 private:
  void item(const Operator& op, size_t position, ArgKind kind, bool writes, const c10::IValue& value);
  void tensor(const Operator& op, size_t position, bool writes, const at::Tensor& tensor);
  void other_tensor(const Operator& op, size_t position, bool writes, const at::Tensor& tensor);
  void scalar(const c10::IValue& value);
  void string(c10::string_view text);
  void length(uint8_t tag, size_t n);
  void on_device(const Operator& op, size_t position, c10::Device device);

  Stream<uint8_t> skeleton_;
  Stream<GenieStorage> storages_;
  Stream<int64_t> params_;
  Stream<int64_t> data_;
  Stream<c10::TensorImpl*> tensors_;
  Stream<uint32_t> first_tensor_;
  GenieCall call_{};
  int64_t seed_ = 0;
  size_t items_ = 0;  // of lists
  c10::DeviceIndex device_ = -1;
  bool requires_grad_ = false;
};

// An encoder for one call of this thread. While the call waits a handler may make other calls: they
// get another.
class EncoderLease {
 public:
  EncoderLease();
  EncoderLease(const EncoderLease&) = delete;
  EncoderLease& operator=(const EncoderLease&) = delete;
  ~EncoderLease();
  Encoder* operator->() const noexcept {
    return encoder_;
  }
  Encoder& operator*() const noexcept {
    return *encoder_;
  }

 private:
  size_t& depth_;
  Encoder* encoder_;
};

}  // namespace genie
