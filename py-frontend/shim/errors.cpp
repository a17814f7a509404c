#include "errors.h"

#include <c10/util/Exception.h>

#include <exception>
#include <string>
#include <utility>

#include "backend.h"

struct _object;

// torch/csrc/Exceptions.h includes Python.h, which a backend that links no libtorch_python cannot.
// This repeats the one class of it that PyTorch's exception translation catches by reference: the
// same name, members and virtual functions in the same order, so it is the same type to the
// run-time type information.
namespace torch {
struct PyTorchError : public std::exception {
  PyTorchError() = default;
  PyTorchError(std::string msg_) : msg(std::move(msg_)) {}
  virtual _object* python_type() = 0;
  const char* what() const noexcept override {
    return msg.c_str();
  }
  std::string msg;
};
}  // namespace torch

namespace genie {
namespace {

struct PythonClassError final : torch::PyTorchError {
  PythonClassError(_object* type, std::string message)
      : PyTorchError(std::move(message)), type_(type) {}
  _object* python_type() override {
    return type_;
  }

 private:
  // Borrowed: the genie package keeps its exception classes for the life of the process.
  _object* type_;
};

}  // namespace

void throw_last_error() {
  GenieError error{};
  genie_last_error(&error);
  std::string message = error.message != nullptr ? error.message : "remote_accelerator: unknown error";
  const c10::SourceLocation here{__func__, __FILE__, static_cast<uint32_t>(__LINE__)};
  switch (error.error_class) {
    case GENIE_OUT_OF_MEMORY:
      throw c10::OutOfMemoryError(here, std::move(message));
    case GENIE_INDEX_ERROR:
      throw c10::IndexError(here, std::move(message));
    case GENIE_NOT_IMPLEMENTED:
      throw c10::NotImplementedError(here, std::move(message));
    case GENIE_VALUE_ERROR:
      throw c10::ValueError(here, std::move(message));
    case GENIE_TYPE_ERROR:
      throw c10::TypeError(here, std::move(message));
    case GENIE_LINALG_ERROR:
      throw c10::LinAlgError(here, std::move(message));
    case GENIE_PYTHON_CLASS:
      if (error.python_class != nullptr) {
        throw PythonClassError(static_cast<_object*>(error.python_class), std::move(message));
      }
      break;
    case GENIE_RUNTIME_ERROR:
      break;
  }
  throw c10::Error(here, std::move(message));
}

void refuse_dims(size_t dims) {
  TORCH_CHECK(
      false,
      kDeviceName,
      " takes tensors of at most ",
      limits::DIMS_MAX,
      " dimensions, and this one has ",
      dims);
}

}  // namespace genie
