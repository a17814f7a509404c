// Whose an operator is, by its name. Header-only: the frontend and the executor both include it.
#pragma once

#include <string_view>

namespace genie {

inline constexpr std::string_view ATEN = "aten::";

// ATen's own, and no other library's.
inline bool is_atens(std::string_view name) {
  return name.substr(0, ATEN.size()) == ATEN;
}

// Without `aten::`. Another library's as it is: it may be called what one of ATen's is, and mean something
// else.
inline std::string_view plain_name(std::string_view name) {
  return is_atens(name) ? name.substr(ATEN.size()) : name;
}

} // namespace genie
