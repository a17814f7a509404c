// Tags and flags of dataplane/session/src/skeleton.rs, where they are documented.
#pragma once

#include <cstdint>

namespace genie {

namespace tag {
inline constexpr uint8_t None = 0;
inline constexpr uint8_t Tensor = 1;
inline constexpr uint8_t ScalarTensor = 2;
inline constexpr uint8_t Int = 3;
inline constexpr uint8_t Enum = 4;
inline constexpr uint8_t Double = 5;
inline constexpr uint8_t True = 6;
inline constexpr uint8_t False = 7;
inline constexpr uint8_t ScalarInt = 8;
inline constexpr uint8_t ScalarDouble = 9;
inline constexpr uint8_t ScalarTrue = 10;
inline constexpr uint8_t ScalarFalse = 11;
inline constexpr uint8_t ScalarComplex = 12;
inline constexpr uint8_t String = 13;
inline constexpr uint8_t IntList = 14;
inline constexpr uint8_t DoubleList = 15;
inline constexpr uint8_t BoolList = 16;
inline constexpr uint8_t List = 17;
inline constexpr uint8_t Device = 18;
inline constexpr uint8_t Generator = 19;
inline constexpr uint8_t Seed = 20;
}  // namespace tag

namespace flag {
inline constexpr uint8_t Write = 1;
inline constexpr uint8_t Wrapped = 2;
inline constexpr uint8_t Negative = 4;
inline constexpr uint8_t Conjugate = 8;
}  // namespace flag

namespace out {
inline constexpr uint8_t None = 0;
inline constexpr uint8_t Fresh = 1;
inline constexpr uint8_t Alias = 2;
inline constexpr uint8_t List = 3;
}  // namespace out

}  // namespace genie
