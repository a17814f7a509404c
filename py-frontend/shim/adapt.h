// What single operators need beside their schema.
#pragma once

#include "operator.h"

namespace genie {

// Sets `prepare`, `local_value` and corrections of an operator that needs them.
void adapt(Operator& op);

}  // namespace genie
