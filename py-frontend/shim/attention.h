// Scaled dot product attention as one operator.
#pragma once

#include "operator.h"

namespace genie {

// Makes PyTorch choose the overrideable attention where a fused kernel can do the call.
void register_attention_choice();

void adapt_attention(Operator& op);

Shapes attention_rule(const Operator& op, Arguments arguments, ResultBuilder& results);
Shapes attention_backward_rule(const Operator& op, Arguments arguments, ResultBuilder& results);

}  // namespace genie
