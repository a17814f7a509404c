// Convolution with its gradients, and pooling.
#include <ATen/native/ConvUtils.h>

#include <string>

#include "rules.h"

namespace genie {
namespace {

using at::Tensor;

// A list of one number per spatial dimension, which may be given as one number for all.
Sizes per_dimension(const c10::IValue& value, int64_t dimensions) {
  Sizes sizes = int_list(value);
  if (sizes.size() == 1) {
    sizes.resize(static_cast<size_t>(dimensions), sizes[0]);
  }
  return sizes;
}

Shapes convolution(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& input = arguments[0].toTensor();
  const Tensor& weight = arguments[1].toTensor();
  const int64_t spatial = weight.dim() - 2;
  const int64_t groups = arguments[8].toInt();
  if (spatial < 1 || input.dim() != weight.dim() || groups < 1) {
    return Shapes::AskMeta;  // which says what is wrong
  }
  const bool transposed = arguments[6].toBool();
  const Sizes stride = per_dimension(arguments[3], spatial);
  const Sizes padding = per_dimension(arguments[4], spatial);
  const Sizes dilation = per_dimension(arguments[5], spatial);
  const Sizes output_padding = per_dimension(arguments[7], spatial);
  const int64_t channels = transposed ? weight.size(0) : weight.size(1) * groups;
  TORCH_CHECK(
      input.size(1) == channels,
      "Given ",
      transposed ? "transposed=1" : "groups=",
      transposed ? std::string() : std::to_string(groups),
      ", weight of size ",
      weight.sizes(),
      ", expected input",
      input.sizes(),
      " to have ",
      channels,
      " channels, but got ",
      input.size(1),
      " channels instead");
  Sizes sizes;
  sizes.push_back(input.size(0));
  sizes.push_back(transposed ? weight.size(1) * groups : weight.size(0));
  for (int64_t i = 0; i < spatial; ++i) {
    const int64_t kernel = dilation[i] * (weight.size(i + 2) - 1) + 1;
    const int64_t size = input.size(i + 2);
    if (stride[i] <= 0 || (!transposed && size + 2 * padding[i] < kernel)) {
      return Shapes::AskMeta;
    }
    sizes.push_back(
        transposed ? (size - 1) * stride[i] - 2 * padding[i] + kernel + output_padding[i]
                   : (size + 2 * padding[i] - kernel) / stride[i] + 1);
  }
  in_format(
      input.scalar_type(),
      sizes,
      at::native::_determine_backend_memory_format(
          to_meta(input), to_meta(weight), at::native::ConvBackend::Mkldnn),
      results);
  return Shapes::Known;
}

Shapes convolution_backward(const Operator&, Arguments arguments, ResultBuilder& results) {
  const auto wanted = arguments[10].toListRef();
  const Tensor& input = arguments[1].toTensor();
  const Tensor& weight = arguments[2].toTensor();
  for (size_t i = 0; i < 3; ++i) {
    if (!wanted[i].toBool()) {
      results.none();
    } else if (i == 0) {
      in_format(input.scalar_type(), input.sizes(), input.suggest_memory_format(), results);
    } else if (i == 1) {
      in_format(weight.scalar_type(), weight.sizes(), weight.suggest_memory_format(), results);
    } else {
      results.contiguous(weight.scalar_type(), int_list(arguments[3]));
    }
  }
  return Shapes::Known;
}

Shapes adaptive_avg_pool2d(const Operator&, Arguments arguments, ResultBuilder& results) {
  const Tensor& self = arguments[0].toTensor();
  const Sizes output = int_list(arguments[1]);
  if ((self.dim() != 3 && self.dim() != 4) || output.size() != 2) {
    return Shapes::AskMeta;
  }
  Sizes sizes(self.sizes().begin(), self.sizes().end() - 2);
  sizes.append(output.begin(), output.end());
  in_format(self.scalar_type(), sizes, self.suggest_memory_format(), results);
  return Shapes::Known;
}

}  // namespace

void add_convolution_rules(RuleTable& table) {
  table.add(&convolution, {"convolution"});
  table.add(&convolution_backward, {"convolution_backward"});
  table.add(&adaptive_avg_pool2d, {"_adaptive_avg_pool2d"});
}

}  // namespace genie
