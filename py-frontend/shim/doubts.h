// Calls that a kernel may refuse where the shapes alone look right.
#pragma once

#include "operator.h"

namespace genie {

// Whether a call with these arguments is to be tried on the node before anything else goes on, so that what is
// wrong with it is raised by the call itself. Asked of the first call of each signature.
using Doubt = bool (*)(Arguments arguments);

// Null if there is none.
Doubt find_doubt(const c10::OperatorName& name);

}  // namespace genie
