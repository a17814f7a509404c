#include "encode.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/DefaultDtype.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/function.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "allocator.h"
#include "errors.h"
#include "log_limits.h"
#include "skeleton.h"

namespace genie {
namespace {

static_assert(tag::COUNT == 22, "an argument tag is new: say here which arguments become it");

// Items of a call beside those of its lists: its arguments, and what goes before and after them.
constexpr size_t kOtherItems = 64;

int64_t bits(double value) noexcept {
  int64_t result = 0;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

uint8_t sign_flags(c10::DispatchKeySet keys) noexcept {
  uint8_t flags = 0;
  if (C10_UNLIKELY(keys.has(c10::DispatchKey::Negative))) {
    flags |= flag::NEGATIVE;
  }
  if (C10_UNLIKELY(keys.has(c10::DispatchKey::Conjugate))) {
    flags |= flag::CONJUGATE;
  }
  return flags;
}

uint8_t dtype_byte(const c10::TensorImpl& impl) {
  return static_cast<uint8_t>(c10::typeMetaToScalarType(impl.dtype()));
}

// Functionality of a tensor that is not plain dense memory.
constexpr c10::DispatchKeySet kNotDense = c10::DispatchKeySet({
    c10::DispatchKey::Sparse,
    c10::DispatchKey::SparseCsr,
    c10::DispatchKey::Quantized,
    c10::DispatchKey::NestedTensor,
    c10::DispatchKey::Python,
});

std::string describe(const Operator& op, size_t position) {
  const auto& schema = op.handle.schema();
  return c10::str(
      "(when checking argument ", schema.arguments()[position].name(), " in ", schema.name(), ")");
}

}  // namespace

void Encoder::encode(const Operator& op, Arguments arguments, Seeds seeds) {
  skeleton_.clear();
  storages_.clear();
  params_.clear();
  data_.clear();
  tensors_.clear();
  first_tensor_.clear();
  seed_ = seeds.value;
  device_ = -1;
  requires_grad_ = false;
  items_ = 0;

  const c10::ScalarType default_dtype = c10::get_default_dtype_as_scalartype();
  if (C10_UNLIKELY(default_dtype != c10::kFloat)) {
    skeleton_.push(tag::DEFAULT_DTYPE);
    skeleton_.push(static_cast<uint8_t>(default_dtype));
  }
  const bool training =
      op.training_argument >= 0 && arguments[op.training_argument].toBool();
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    const Argument argument = op.arguments[i];
    const c10::IValue& value = arguments[i];
    const bool writes = argument.writes == Writes::Always ||
        (argument.writes == Writes::WhenTraining && training);
    first_tensor_.push(static_cast<uint32_t>(tensors_.size()));
    if (C10_LIKELY(value.isTensor())) {
      tensor(op, i, writes, value.toTensor());
    } else {
      item(op, i, argument.kind, writes, value);
    }
  }
  if (op.draws(arguments)) {
    skeleton_.push(tag::SEED);
    data_.push(seed_);
  }

  TORCH_CHECK(
      items_ + kOtherItems <= limits::ITEMS_MAX,
      op.handle.schema().name(), ": ", items_, " items in the lists of one call are too many for ",
      kDeviceName, ", which takes at most ", limits::ITEMS_MAX - kOtherItems,
      ": call it on fewer at a time");

  call_.op = op.number;
  call_.key_has_data = op.key_has_data ? 1 : 0;
  call_.skeleton = skeleton_.data();
  call_.skeleton_len = skeleton_.size();
  call_.storages = storages_.data();
  call_.n_storages = storages_.size();
  call_.params = params_.data();
  call_.n_params = params_.size();
  call_.data = data_.data();
  call_.n_data = data_.size();
  call_.device = device();
  call_.sequence_nr = requires_grad_ && c10::GradMode::is_enabled()
      ? seeds.sequence_nr
      : -1;
  const auto node = torch::autograd::get_current_node();
  call_.forward_nr = node ? static_cast<int64_t>(node->sequence_nr()) : -1;
}

void Encoder::tensor(const Operator& op, size_t position, bool writes, const at::Tensor& tensor) {
  c10::TensorImpl* const impl = tensor.unsafeGetTensorImpl();
  const c10::DispatchKeySet keys = impl->key_set();
  if (C10_UNLIKELY(
          !tensor.defined() || impl->device_type() != kRemote || keys.has_any(kNotDense))) {
    other_tensor(op, position, writes, tensor);
    return;
  }
  const c10::DeviceIndex device = impl->device().index();
  if (C10_UNLIKELY(device != device_)) {
    on_device(op, position, impl->device());
  }
  requires_grad_ = requires_grad_ || impl->requires_grad();

  GenieStorage handle = handle_or_zero(*impl->unsafe_storage().unsafeGetStorageImpl());
  if (C10_UNLIKELY(handle == 0)) {
    handle = handle_of(tensor);  // a storage rebuilt from its address, or an error
  }
  const c10::IntArrayRef sizes = impl->sizes();
  const c10::IntArrayRef strides = impl->strides();
  const size_t ndim = sizes.size();
  check_dims(ndim);

  uint8_t* s = skeleton_.reserve(4);
  *s++ = tag::TENSOR;
  *s++ = static_cast<uint8_t>(
      sign_flags(keys) | (writes ? flag::WRITE : 0) |
      (impl->is_wrapped_number() ? flag::WRAPPED : 0));
  *s++ = dtype_byte(*impl);
  *s++ = static_cast<uint8_t>(ndim);
  skeleton_.filled_to(s);
  storages_.push(handle);
  tensors_.push(impl);

  int64_t* p = params_.reserve(1 + 2 * ndim);
  *p++ = impl->storage_offset();
  p = std::copy(sizes.begin(), sizes.end(), p);
  p = std::copy(strides.begin(), strides.end(), p);
  params_.filled_to(p);
}

// Everything that is not a dense tensor on a remote accelerator.
void Encoder::other_tensor(
    const Operator& op,
    size_t position,
    bool writes,
    const at::Tensor& tensor) {
  if (!tensor.defined()) {
    skeleton_.push(tag::NONE);
    return;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      !tensor.key_set().has_any(kNotDense),
      kDeviceName,
      " takes dense tensors; got a sparse, nested, quantized or subclassed one ",
      describe(op, position));
  const c10::Device here(kRemote, device());
  TORCH_CHECK(
      tensor.device().is_cpu() && tensor.dim() == 0 && !writes,
      "Expected all tensors to be on the same device, but found at least two devices, ",
      here,
      " and ",
      tensor.device(),
      "! ",
      describe(op, position));
  requires_grad_ = requires_grad_ || tensor.requires_grad();

  const c10::ScalarType dtype = tensor.scalar_type();
  skeleton_.push(tag::SCALAR_TENSOR);
  skeleton_.push(tensor.unsafeGetTensorImpl()->is_wrapped_number() ? flag::WRAPPED : uint8_t{0});
  skeleton_.push(static_cast<uint8_t>(dtype));
  if (dtype == c10::ScalarType::Double) {
    data_.push(bits(*tensor.const_data_ptr<double>()));
    return;
  }
  if (dtype == c10::ScalarType::Long) {
    data_.push(*tensor.const_data_ptr<int64_t>());
    return;
  }
  const c10::Scalar value = tensor.item();
  if (c10::isComplexType(dtype)) {
    const auto complex = value.toComplexDouble();
    data_.push(bits(complex.real()));
    data_.push(bits(complex.imag()));
  } else if (c10::isFloatingType(dtype)) {
    data_.push(bits(value.toDouble()));
  } else {
    // An unsigned 64-bit value keeps its bits.
    data_.push(
        dtype == c10::ScalarType::UInt64 ? static_cast<int64_t>(value.toUInt64()) : value.toLong());
  }
}

void Encoder::on_device(const Operator& op, size_t position, c10::Device device) {
  const c10::DeviceIndex index = index_or_current(device);
  TORCH_CHECK(
      device_ < 0 || device_ == index,
      "Expected all tensors to be on the same device, but found at least two devices, ",
      c10::Device(kRemote, device_),
      " and ",
      c10::Device(kRemote, index),
      "! ",
      describe(op, position));
  device_ = index;
}

void Encoder::length(uint8_t tag, size_t n) {
  items_ += tag == tag::LIST ? n : 0;
  TORCH_CHECK(
      n <= std::numeric_limits<uint16_t>::max(), kDeviceName, ": a list of ", n, " items is too long");
  uint8_t* s = skeleton_.reserve(3);
  *s++ = tag;
  *s++ = static_cast<uint8_t>(n & 0xff);
  *s++ = static_cast<uint8_t>(n >> 8);
  skeleton_.filled_to(s);
}

void Encoder::string(c10::string_view text) {
  length(tag::STRING, text.size());
  uint8_t* const s = skeleton_.reserve(text.size());
  std::memcpy(s, text.data(), text.size());
  skeleton_.filled_to(s + text.size());
}

void Encoder::scalar(const c10::IValue& value) {
  if (value.isDouble()) {
    skeleton_.push(tag::SCALAR_DOUBLE);
    data_.push(bits(value.toDouble()));
  } else if (value.isInt()) {
    skeleton_.push(tag::SCALAR_INT);
    data_.push(value.toInt());
  } else if (value.isBool()) {
    skeleton_.push(value.toBool() ? tag::SCALAR_TRUE : tag::SCALAR_FALSE);
  } else {
    const auto complex = value.toComplexDouble();
    skeleton_.push(tag::SCALAR_COMPLEX);
    data_.push(bits(complex.real()));
    data_.push(bits(complex.imag()));
  }
}

void Encoder::item(
    const Operator& op,
    size_t position,
    ArgKind kind,
    bool writes,
    const c10::IValue& value) {
  if (value.isNone() && kind != ArgKind::Generator) {
    skeleton_.push(tag::NONE);
    return;
  }
  switch (kind) {
    case ArgKind::Tensor:
      tensor(op, position, writes, value.toTensor());
      return;
    case ArgKind::Int:
      skeleton_.push(tag::INT);
      params_.push(value.toInt());
      return;
    case ArgKind::Enum:
      skeleton_.push(tag::ENUM);
      skeleton_.push(static_cast<uint8_t>(value.toInt()));
      return;
    case ArgKind::Double:
      skeleton_.push(tag::DOUBLE);
      data_.push(bits(value.isInt() ? static_cast<double>(value.toInt()) : value.toDouble()));
      return;
    case ArgKind::Bool:
      skeleton_.push(value.toBool() ? tag::TRUE : tag::FALSE);
      return;
    case ArgKind::Scalar:
      scalar(value);
      return;
    case ArgKind::String:
      string(value.toStringView());
      return;
    case ArgKind::Device: {
      const c10::Device device = value.toDevice();
      TORCH_CHECK(
          device.type() == kRemote,
          op.handle.schema().name(),
          ": expected a ",
          kDeviceName,
          " device, got ",
          device);
      on_device(op, position, device);
      check_ordinal(device_);
      skeleton_.push(tag::DEVICE);
      skeleton_.push(static_cast<uint8_t>(device_));
      return;
    }
    case ArgKind::Generator:
      skeleton_.push(tag::GENERATOR);
      data_.push(seed_);
      return;
    case ArgKind::IntList: {
      // A single number may stand for a list whose length the schema gives.
      if (value.isInt()) {
        length(tag::INT_LIST, 1);
        params_.push(value.toInt());
        return;
      }
      const auto items = value.toListRef();
      length(tag::INT_LIST, items.size());
      int64_t* p = params_.reserve(items.size());
      for (const c10::IValue& item : items) {
        *p++ = item.toInt();
      }
      params_.filled_to(p);
      return;
    }
    case ArgKind::DoubleList: {
      const auto items = value.toListRef();
      length(tag::DOUBLE_LIST, items.size());
      for (const c10::IValue& item : items) {
        data_.push(bits(item.toDouble()));
      }
      return;
    }
    case ArgKind::BoolList: {
      const auto items = value.toListRef();
      length(tag::BOOL_LIST, items.size());
      for (const c10::IValue& item : items) {
        skeleton_.push(item.toBool() ? 1 : 0);
      }
      return;
    }
    case ArgKind::ScalarList: {
      const auto items = value.toListRef();
      length(tag::LIST, items.size());
      for (const c10::IValue& element : items) {
        scalar(element);
      }
      return;
    }
    case ArgKind::TensorList:
    case ArgKind::OptionalTensorList: {
      const auto items = value.toListRef();
      length(tag::LIST, items.size());
      for (const c10::IValue& element : items) {
        item(op, position, ArgKind::Tensor, writes, element);
      }
      return;
    }
    case ArgKind::Unsupported:
      break;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, kDeviceName, " cannot pass this kind of argument on ", describe(op, position));
}

namespace {

// This thread's encoders: the first of them serves nearly every call.
struct Encoders {
  size_t depth = 0;
  Encoder first;
  std::vector<std::unique_ptr<Encoder>> more;

  Encoder* take() {
    const size_t taken = depth;
    if (C10_UNLIKELY(taken > more.size())) {
      more.push_back(std::make_unique<Encoder>());
    }
    depth = taken + 1;
    return C10_LIKELY(taken == 0) ? &first : more[taken - 1].get();
  }
};

Encoders& encoders() {
  thread_local Encoders instance;
  return instance;
}

}  // namespace

EncoderLease::EncoderLease() : depth_(encoders().depth), encoder_(encoders().take()) {}

EncoderLease::~EncoderLease() {
  --depth_;
}

}  // namespace genie
