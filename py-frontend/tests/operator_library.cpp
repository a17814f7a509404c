// Operators of a library's own, as a program's author or a vendor builds them.
#include <torch/library.h>

#include <ATen/ATen.h>

#include <cstdlib>

namespace {

at::Tensor scale(const at::Tensor& x, double by) {
  return x * by;
}

// The rows of `x` where `keep` holds: how many, only the data tells.
at::Tensor rows(const at::Tensor& x, const at::Tensor& keep) {
  return x.index({keep.nonzero().flatten()});
}

at::Tensor& add_into(at::Tensor& x, const at::Tensor& y) {
  return x.add_(y);
}

std::vector<at::Tensor> halves(const at::Tensor& x) {
  const int64_t middle = x.size(0) / 2;
  return {x.slice(0, 0, middle).clone(), x.slice(0, middle).clone()};
}

int64_t positives(const at::Tensor& x) {
  return x.gt(0).sum().item<int64_t>();
}

at::Tensor refuse(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.numel() > 100, "refuse wants more than 100 elements");
  return x.clone();
}

at::Tensor die(const at::Tensor&) {
  std::abort();
}

at::Tensor first(const at::Tensor& x) {
  return x.select(0, 0);
}

// Called as one of ATen's is, and something else.
at::Tensor cumsum(const at::Tensor& x, int64_t reduction) {
  return x + reduction;
}

at::Tensor weigh(const at::TensorList& parts, const std::optional<at::Tensor>& weight) {
  at::Tensor sum = at::zeros_like(parts[0]);
  for (const at::Tensor& part : parts) {
    sum += weight.has_value() ? part * *weight : part;
  }
  return sum;
}

at::Tensor weigh_meta(const at::TensorList& parts, const std::optional<at::Tensor>&) {
  TORCH_CHECK(!parts.empty(), "weigh wants parts");
  return at::empty_like(parts[0]);
}

}  // namespace

TORCH_LIBRARY(genie_test, m) {
  m.def("scale(Tensor x, float by) -> Tensor");
  m.def("rows(Tensor x, Tensor keep) -> Tensor");
  m.def("add_into_(Tensor(a!) x, Tensor y) -> Tensor(a!)");
  m.def("halves(Tensor x) -> Tensor[]");
  m.def("positives(Tensor x) -> int");
  m.def("refuse(Tensor x) -> Tensor");
  m.def("die(Tensor x) -> Tensor");
  m.def("first(Tensor(a) x) -> Tensor(a)");
  m.def("cumsum(Tensor x, int reduction) -> Tensor");
  m.def("weigh(Tensor[] parts, Tensor? weight=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(genie_test, CPU, m) {
  m.impl("scale", scale);
  m.impl("rows", rows);
  m.impl("add_into_", add_into);
  m.impl("halves", halves);
  m.impl("positives", positives);
  m.impl("refuse", refuse);
  m.impl("die", die);
  m.impl("first", first);
  m.impl("cumsum", cumsum);
  m.impl("weigh", weigh);
}

TORCH_LIBRARY_IMPL(genie_test, Meta, m) {
  m.impl("weigh", weigh_meta);
}
