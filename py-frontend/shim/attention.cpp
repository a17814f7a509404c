#include "attention.h"

#include <ATen/SDPBackend.h>
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/native/transformers/attention.h>

#include "backend.h"
#include "rules/rules.h"

namespace genie {
namespace {

using at::Tensor;

// Sizes are symbols where PyTorch traces a graph (torch.compile): equal if they are known to be.
bool is_equal(const c10::SymInt& one, const c10::SymInt& other) {
  return TORCH_GUARD_OR_FALSE(one.sym_eq(other));
}

bool has_elements(const Tensor& tensor) {
  return TORCH_GUARD_OR_TRUE(tensor.sym_numel().sym_ne(0));
}

// One operator wherever its shape rule holds: four dimensions, equal batches, keys' heads that
// divide the queries'. Anything else is composed of simpler operators, which also report what is
// wrong with the shapes.
bool can_fuse(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const std::optional<Tensor>& mask,
    bool grouped) {
  if (query.dim() != 4 || key.dim() != 4 || value.dim() != 4 ||
      !at::isFloatingType(query.scalar_type()) || !has_elements(query) || !has_elements(key)) {
    return false;
  }
  const auto q = query.sym_sizes();
  const auto k = key.sym_sizes();
  const auto v = value.sym_sizes();
  const bool heads_fit = is_equal(q[1], k[1]) || (grouped && is_equal(q[1] % k[1], 0));
  const bool fits = is_equal(q[0], k[0]) && is_equal(q[0], v[0]) && is_equal(k[1], v[1]) &&
      is_equal(k[2], v[2]) && is_equal(q[3], k[3]) && heads_fit;
  if (!fits || !mask.has_value() || !mask->defined()) {
    return fits;
  }
  const c10::SymInt scores[] = {q[0], q[1], q[2], k[2]};
  const auto given = mask->sym_sizes();
  if (given.size() > 4) {
    return false;
  }
  const size_t more = 4 - given.size();
  for (size_t i = 0; i < given.size(); ++i) {
    if (!is_equal(given[i], 1) && !is_equal(given[i], scores[more + i])) {
      return false;
    }
  }
  return true;
}

// The fused operator has no rule for batches of `vmap`; what it is composed of has. Inside of another transform
// (`vmap(grad(f))`) a batch is not to be seen, so all of them are taken for one.
bool is_transformed(const Tensor& tensor) {
  return tensor.key_set().has_any(c10::DispatchKeySet{
      c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper});
}

int64_t choose(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const std::optional<Tensor>& mask,
    double /*dropout*/,
    bool is_causal,
    std::optional<double> /*scale*/,
    bool enable_gqa) {
  // A mask or causality, not both: the composition says so.
  const bool both = is_causal && mask.has_value() && mask->defined();
  const bool fuse = !both && at::globalContext().userEnabledOverrideableSDP() &&
      !is_transformed(query) && !is_transformed(key) && !is_transformed(value) &&
      can_fuse(query, key, value, mask, enable_gqa);
  return static_cast<int64_t>(fuse ? at::SDPBackend::overrideable : at::SDPBackend::math);
}

enum Forward : size_t { kQuery = 0, kKey = 1, kValue = 2, kDropout = 4 };
enum Backward : size_t { kGradOut = 0, kBackwardQuery = 1, kBackwardKey = 2, kBackwardValue = 3,
                         kBackwardMask = 4, kGradMask = 5 };

// The length of queries and of keys, which the backward takes as arguments.
c10::IValue lengths(size_t result, Arguments arguments) {
  constexpr size_t kMaxQueries = 4;
  return arguments[result == kMaxQueries ? kQuery : kKey].toTensor().size(2);
}

// Strides of [batch, heads, length, size] whose memory is [batch, length, heads, size], as the fused
// kernels lay out gradients: the gradient of the `transpose(1, 2)` before attention is then a view.
void heads_inside(c10::ScalarType dtype, c10::IntArrayRef sizes, ResultBuilder& results) {
  const int64_t heads = sizes[1];
  const int64_t length = sizes[2];
  const int64_t size = sizes[3];
  const int64_t strides[] = {length * heads * size, size, heads * size, 1};
  results.fresh(dtype, sizes, strides);
}

Shapes attention(const Operator& /*op*/, Arguments arguments, ResultBuilder& results) {
  const Tensor& query = arguments[kQuery].toTensor();
  const Tensor& value = arguments[kValue].toTensor();
  // The fused kernel's output is laid out like the query; the composition's is contiguous.
  if (query.size(1) == value.size(1) && query.size(3) == value.size(3)) {
    results.like(query);
  } else {
    const int64_t output[] = {query.size(0), query.size(1), query.size(2), value.size(3)};
    results.contiguous(query.scalar_type(), output);
  }
  // logsumexp [batch, heads, length], laid out as [batch, length, heads].
  const int64_t heads = query.size(1);
  const int64_t length = query.size(2);
  const int64_t sizes[] = {query.size(0), heads, length};
  const int64_t strides[] = {length * heads, 1, heads};
  const bool is_double = query.scalar_type() == c10::ScalarType::Double;
  results.fresh(
      is_double ? c10::ScalarType::Double : c10::ScalarType::Float, sizes, strides);
  results.none();  // cum_seq_q
  results.none();  // cum_seq_k
  // The philox seed and offset, by which the backward repeats the dropout: always there, since what is traced
  // (AOTAutograd) takes them for tensors.
  results.contiguous(c10::ScalarType::Long, {});
  results.contiguous(c10::ScalarType::Long, {});
  results.none();  // debug_attn_mask
  return Shapes::Known;
}

Shapes attention_backward(const Operator& /*op*/, Arguments arguments, ResultBuilder& results) {
  for (const size_t input : {kBackwardQuery, kBackwardKey, kBackwardValue}) {
    const Tensor& tensor = arguments[input].toTensor();
    heads_inside(tensor.scalar_type(), tensor.sizes(), results);
  }
  const auto wanted = arguments[kGradMask].toListRef();
  if (wanted[3].toBool() && is_tensor(arguments[kBackwardMask])) {
    results.like(arguments[kBackwardMask].toTensor());
  } else {
    results.none();
  }
  return Shapes::Known;
}

}  // namespace

void register_attention_choice() {
  at::native::_fused_sdp_choice_stub.set_privateuse1_dispatch_ptr(&choose);
}

void adapt_attention(Operator& op) {
  const std::string& name = op.handle.schema().name();
  if (name == "aten::_scaled_dot_product_fused_attention_overrideable" && !op.has_out) {
    op.local_value = &lengths;
    op.dropout_argument = kDropout;
  }
}

void add_attention_rules(RuleTable& table) {
  table.add(&attention, {"_scaled_dot_product_fused_attention_overrideable"});
  table.add(&attention_backward, {"_scaled_dot_product_fused_attention_overrideable_backward"});
}

}  // namespace genie
