// Scaled dot product attention as one operator.
#pragma once

#include "operator.h"

namespace genie {

// Makes PyTorch choose the overrideable attention where a fused kernel can do the call.
void register_attention_choice();

void adapt_attention(Operator& op);

}  // namespace genie
