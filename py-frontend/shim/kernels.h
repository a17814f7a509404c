// Kernels that are no plain records, by what they do.
#pragma once

#include <torch/library.h>

namespace genie {

void register_copies(torch::Library& aten);
void register_factories(torch::Library& aten);
void register_views(torch::Library& aten);

}  // namespace genie
