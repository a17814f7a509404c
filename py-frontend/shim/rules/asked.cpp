// Operators whose results PyTorch's shape functions describe otherwise than its kernels give them: in other
// strides, so that the program's next `.view` would break, or dtypes. The node is asked, once for each shape.
#include "rules.h"

namespace genie {
namespace {

Shapes ask_once(const Operator&, Arguments, ResultBuilder&) {
  return Shapes::AskNodeOnce;
}

// How large the residuals are depends on the rank that is found.
Shapes ask(const Operator&, Arguments, ResultBuilder&) {
  return Shapes::AskNode;
}

}  // namespace

void add_asked_rules(RuleTable& table) {
  table.add(&ask_once, {"_fft_c2c", "_fft_c2c.out", "_fft_c2r", "_fft_c2r.out", "_fft_r2c", "_fft_r2c.out"});
  table.add(
      &ask_once,
      {"_linalg_det", "_linalg_det.result", "_linalg_eigh", "_linalg_eigh.eigenvalues",
       "_linalg_slogdet", "_linalg_slogdet.sign", "_linalg_solve_ex", "_linalg_solve_ex.result",
       "_linalg_svd", "_linalg_svd.U", "cholesky", "cholesky.out", "cholesky_inverse",
       "cholesky_inverse.out", "cholesky_solve", "cholesky_solve.out", "geqrf", "geqrf.a",
       "linalg_cholesky_ex", "linalg_cholesky_ex.L", "linalg_eig", "linalg_eig.out",
       "linalg_householder_product", "linalg_householder_product.out", "linalg_inv_ex",
       "linalg_inv_ex.inverse", "linalg_ldl_factor_ex", "linalg_ldl_factor_ex.out",
       "linalg_ldl_solve", "linalg_ldl_solve.out", "linalg_lu", "linalg_lu.out",
       "linalg_lu_factor_ex", "linalg_lu_factor_ex.out", "linalg_lu_solve", "linalg_lu_solve.out",
       "linalg_qr", "linalg_qr.out", "linalg_solve_triangular", "linalg_solve_triangular.out",
       "lu_unpack", "lu_unpack.out", "ormqr", "ormqr.out", "triangular_solve",
       "triangular_solve.X"});
  table.add(&ask, {"linalg_lstsq", "linalg_lstsq.out"});
  table.add(
      &ask_once,
      {"_grouped_mm", "_weight_norm_interface", "_weight_norm_interface.out", "conj_physical.out", "_scaled_grouped_mm", "max_unpool2d", "max_unpool2d.out", "max_unpool3d",
       "max_unpool3d.out", "multilabel_margin_loss_forward",
       "multilabel_margin_loss_forward.output", "nonzero_static", "nonzero_static.out"});
  table.add(
      &ask_once,
      {"_batch_norm_with_update", "_batch_norm_with_update_functional", "_batch_norm_no_update",
       "_native_batch_norm_legit.out", "native_batch_norm.out"});
}

}  // namespace genie
