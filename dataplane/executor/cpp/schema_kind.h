// What a type in an operator's schema is to Genie. Header-only: the frontend, which writes calls,
// and the executor, which reads them, both include it.
#pragma once

#include <ATen/core/jit_type.h>

#include <cstdint>

namespace genie {

enum class ArgKind : uint8_t {
  Tensor,
  TensorList,
  OptionalTensorList, // Tensor?[]
  Int,
  Enum, // dtype, layout or memory format, where they are told from an int: the real types do
  Double,
  Bool,
  Scalar,
  String,
  IntList,
  DoubleList,
  BoolList,
  ScalarList,
  Device,
  Generator,
  Unsupported,
};

// That of the value in `T?`, too.
inline ArgKind kind_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return ArgKind::Tensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return ArgKind::Int;
    case c10::TypeKind::ScalarTypeType:
    case c10::TypeKind::LayoutType:
    case c10::TypeKind::MemoryFormatType:
      return ArgKind::Enum;
    case c10::TypeKind::FloatType:
      return ArgKind::Double;
    case c10::TypeKind::BoolType:
      return ArgKind::Bool;
    case c10::TypeKind::NumberType:
      return ArgKind::Scalar;
    case c10::TypeKind::StringType:
      return ArgKind::String;
    case c10::TypeKind::DeviceObjType:
      return ArgKind::Device;
    case c10::TypeKind::GeneratorType:
      return ArgKind::Generator;
    case c10::TypeKind::OptionalType:
      return kind_of(*type.expectRef<c10::OptionalType>().getElementType());
    case c10::TypeKind::ListType: {
      const c10::Type& element = *type.expectRef<c10::ListType>().getElementType();
      const bool optional = element.kind() == c10::TypeKind::OptionalType;
      const ArgKind kind = kind_of(element);
      if (optional) {
        return kind == ArgKind::Tensor ? ArgKind::OptionalTensorList : ArgKind::Unsupported;
      }
      switch (kind) {
        case ArgKind::Tensor:
          return ArgKind::TensorList;
        case ArgKind::Int:
          return ArgKind::IntList;
        case ArgKind::Double:
          return ArgKind::DoubleList;
        case ArgKind::Bool:
          return ArgKind::BoolList;
        case ArgKind::Scalar:
          return ArgKind::ScalarList;
        default:
          return ArgKind::Unsupported;
      }
    }
    default:
      return ArgKind::Unsupported;
  }
}

} // namespace genie
