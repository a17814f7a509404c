"""What kinds of operators there are, told from PyTorch's own schemas and tags: the one table."""

from __future__ import annotations

import torch

from ._names import find_overload

_MATERIALISES = "materialisation trigger"
_SHAPES = "shape-dependent"
_REDUCES = "reduction"
_TUPLE = "tuple-returning"
_COMPUTES = "compute"
_VIEWS = "view"
_METADATA = "metadata"
_UPLOADS = "upload"

#: The classes, and what each means for a program. An operator may be of several.
CLASSES: dict[str, str] = {
    _MATERIALISES: "gives Python a value: the call waits for the node, in one round trip",
    _SHAPES: "what its tensors hold decides the shape that it gives: one round trip",
    _REDUCES: "makes fewer elements of many",
    _TUPLE: "gives several tensors, or a list of them; none is waited for",
    _VIEWS: "looks at the same memory otherwise: no call at all",
    _METADATA: "asks what is known here, of a tensor and not of its elements: no call at all",
    _UPLOADS: "brings elements of this process to the device: a call, with their bytes",
    _COMPUTES: "is recorded, and runs when its segment does",
}

#: Reductions that PyTorch does not tag as such.
_REDUCTIONS = {
    "aten::all", "aten::amax", "aten::amin", "aten::aminmax", "aten::any", "aten::argmax",
    "aten::argmin", "aten::count_nonzero", "aten::cumprod", "aten::cumsum", "aten::dist",
    "aten::dot", "aten::kthvalue", "aten::linalg_vector_norm", "aten::logcumsumexp",
    "aten::logsumexp", "aten::max", "aten::mean", "aten::median", "aten::min", "aten::mode",
    "aten::nanmedian", "aten::nansum", "aten::norm", "aten::prod", "aten::std", "aten::std_mean",
    "aten::sum", "aten::trace", "aten::var", "aten::var_mean", "aten::vdot",
}  # fmt: skip
#: Views that their schemas do not call views.
_VIEWED = {
    "aten::_lazy_clone", "aten::_unsafe_view", "aten::unsafe_chunk", "aten::unsafe_split",
    "aten::unsafe_split_with_sizes",
}  # fmt: skip
_COPIES = {"aten::_copy_from", "aten::_to_copy", "aten::copy_"}
#: They look at elements, for a value.
_LOOKS = {
    "aten::_is_all_true", "aten::_is_any_true", "aten::_local_scalar_dense", "aten::allclose",
    "aten::equal", "aten::is_nonzero", "aten::item",
}  # fmt: skip


def classify(operator: torch._ops.OpOverload) -> tuple[str, ...]:
    """Tell the classes of an operator, in the order of :data:`CLASSES`; at least one."""
    name, schema, tags = operator._schema.name, operator._schema, set(operator.tags)
    found = set()
    if name in _LOOKS:
        found.add(_MATERIALISES)
    elif is_metadata(operator):
        return (_METADATA,)
    if {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & tags:
        found.add(_SHAPES)
    if name in _REDUCTIONS or torch.Tag.reduction in tags:
        found.add(_REDUCES)
    if len(schema.returns) > 1 or any("List[Tensor]" in str(one.type) for one in schema.returns):
        found.add(_TUPLE)
    if is_view(operator):
        found.add(_VIEWS)
    elif _MATERIALISES not in found:
        found.add(_COMPUTES)
    # What gives a value has no shape to be told of.
    if _MATERIALISES in found:
        found.discard(_SHAPES)
    return tuple(one for one in CLASSES if one in found)


def classify_copy(
    operator: torch._ops.OpOverload, *, from_device: bool, to_device: bool
) -> tuple[str, ...]:
    """Tell the classes of a call, which for copies are those of where it copies from and to."""
    if operator._schema.name not in _COPIES or (from_device and to_device):
        return classify(operator)
    return (_UPLOADS,) if to_device else (_MATERIALISES,)


def is_view(operator: torch._ops.OpOverload) -> bool:
    """Whether an operator gives the same memory, looked at otherwise."""
    return operator.is_view or operator._schema.name in _VIEWED


def is_metadata(operator: torch._ops.OpOverload) -> bool:
    """Whether an operator gives no tensor, writes into none, and looks at no elements."""
    schema = operator._schema
    gives = any("Tensor" in str(one.type) for one in schema.returns)
    return not (gives or schema.is_mutable or schema.name in _LOOKS)


def all_of_aten() -> dict[str, tuple[str, ...]]:
    """Tell the classes of each of ATen's operators, by name: of all of its overloads together."""
    found: dict[str, set[str]] = {}
    for name in torch._C._dispatch_get_all_op_names():
        operator = find_overload(name) if name.startswith("aten::") else None
        if operator is not None:
            found.setdefault(operator._schema.name, set()).update(classify(operator))
    return {name: tuple(one for one in CLASSES if one in found[name]) for name in sorted(found)}
