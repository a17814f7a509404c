#include "annotations.h"

#include <c10/util/intrusive_ptr.h>

#include "parts.h"
#include "recorder.h"

namespace genie {
namespace {

// Lies beside a tensor, and goes with what shares its metadata (`detach`).
struct Annotation final : c10::BackendMeta {
  explicit Annotation(uint64_t number) : number(number) {}
  ~Annotation() override {
    genie_annotation_gone(number);
  }

  const uint64_t number;
};

int64_t number_beside(const at::Tensor& tensor) {
  const auto* const annotation =
      dynamic_cast<const Annotation*>(tensor.unsafeGetTensorImpl()->get_backend_meta());
  return annotation == nullptr ? 0 : static_cast<int64_t>(annotation->number);
}

}  // namespace

void annotate(c10::TensorImpl& made) {
  genie_annotate(&made);
}

int64_t annotation_of(const at::Tensor& tensor) {
  const int64_t number = number_beside(tensor);
  return number != 0 ? number : number_beside(elements_of(tensor));
}

}  // namespace genie

extern "C" {

void* genie_backend_annotation_new(uint64_t number) {
  genie::annotations.fetch_add(1, std::memory_order_relaxed);
  return c10::make_intrusive<genie::Annotation>(number).release();
}

void genie_backend_annotation_drop(void* annotation) {
  genie::annotations.fetch_sub(1, std::memory_order_relaxed);
  c10::intrusive_ptr<genie::Annotation>::reclaim(static_cast<genie::Annotation*>(annotation));
}

void genie_backend_annotation_note(void* tensor, void* annotation) {
  static_cast<c10::TensorImpl*>(tensor)->set_backend_meta(
      c10::intrusive_ptr<c10::BackendMeta>::reclaim_copy(
          static_cast<genie::Annotation*>(annotation)));
}

}  // extern "C"
