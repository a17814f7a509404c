"""Writes operators.txt: the operators of the installed torch that a client may name.

Run it with the Python of the checkout's .venv when the torch release changes, and read the diff.
What is left out reads or writes files, holds Python or raw storages, pins or shares memory,
prints, belongs to one vendor's library, or makes tensors that are not strided; what checks.txt
refuses; and what PyTorch composes of others before any backend sees it, since no frontend records
that, and a composition reaches kernels whose arguments nobody has checked.
"""

import re
from pathlib import Path

import torch

LEFT_OUT = re.compile(
    r"""
      from_file | _?print.* | _?pin_memory | is_pinned | record_stream | set_? | set_data | data
    | _version | requires_grad_ | retain_grad | retains_grad | output_nr | is_leaf | _?backward
    | _fw_primal.* | _make_dual.* | _unpack_dual | _debug.* | _test.* | _triton.* | _foobar.*
    | _async_error | get_gradients | _has_compatible_shallow_copy_type | _lazy_.* | lift.*
    | .*(mkldnn|cudnn|miopen|fbgemm|xnnpack|nnpack|hipblas|cufft|vulkan|mps|mtia).*
    | .*(sparse|nested|jagged|csr|csc|bsr|bsc|_cslt|spdiags|hspmm|sspaddmm).*
    | _?(coalesced?_?|is_coalesced|nnz|dimI|dimV|(c?col_|c?row_)?indices(_copy)?|values(_copy)?)
    | _?to_dense.* | _to_cpu | _copy_from.* | _?resize.* | rename_? | names | align_.*
    | refine_names | sym_.* | _functional_.* | _use_.* | _autocast.* | _(add|remove)_batch_dim
    | quantize.* | dequantize | q_.* | qscheme | int_repr | empty_quantized | _saturate_weight.*
    | _?(make|empty)_(per_|affine).* | .*qparams(_optimized|_per_tensor) | _dyn_quant.*
    | _wrapped_.*
    | _validate.* | _propagate_xla.* | _is_zerotensor
    """,
    re.VERBOSE,
)
# Arguments that no record carries: storages, streams, Python and script objects, named dimensions.
TYPES = re.compile(r"Storage|Stream|__torch__|PyObject|Future|Any|Dict\(|QScheme")
NAMED = re.compile(r"\bstr(\[\d?\])?\?? (dims?|names|outdim|dim[012]|out_dim)\b")


# Names, of all overloads or of one, for which no check is known to be enough.
REFUSED = {
    name
    for line in (Path(__file__).parent / "checks.txt").read_text().splitlines()
    if not line.startswith("#") and line.partition(": ")[2].strip().startswith("refused")
    for name in line.partition(": ")[0].split()
}


# Of one vendor's library, and with kernels here that check.
OF_A_VENDOR = {"aten::mkldnn_rnn_layer", "aten::mkldnn_rnn_layer_backward"}

# Compositions whose parts look at everything themselves. Clients without PyTorch name them.
COMPOSED = {"conv1d", "conv2d", "embedding_bag", "linear", "matmul", "outer", "softmax.int"}


def is_composed(name: str) -> bool:
    key = "CompositeImplicitAutograd"
    return name.removeprefix("aten::") not in COMPOSED and (
        torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    )


def allowed(name: str) -> bool:
    base, _, overload = name.partition(".")
    schema = str(torch._C._get_schema(base, overload))
    return name in OF_A_VENDOR or not (
        LEFT_OUT.fullmatch(base.removeprefix("aten::"))
        or {base.removeprefix("aten::"), name.removeprefix("aten::")} & REFUSED
        or is_composed(name)
        or overload == "quantized"
        or TYPES.search(schema)
        or NAMED.search(schema)
    )


def main() -> None:
    known = (n for n in torch._C._dispatch_get_all_op_names() if n.startswith("aten::"))
    names = sorted(name for name in known if allowed(name))
    (Path(__file__).parent / "operators.txt").write_text("\n".join(names) + "\n")
    print(f"{len(names)} operators")


if __name__ == "__main__":
    main()
