"""Sparse, compressed, nested, jagged and quantised tensors, against the CPU."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from support import DEVICE, REMOTE, Counted
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("session")


def coo(*, coalesced: bool = False) -> torch.Tensor:
    """A matrix with a place that is named twice, and rows of values."""
    indices = torch.tensor([[0, 1, 1, 0], [2, 0, 2, 2]])
    made = torch.sparse_coo_tensor(indices, torch.tensor([3.0, 4.0, 5.0, 0.5]), (3, 4))
    return made.coalesce() if coalesced else made


def test_a_sparse_tensor_is_made_there_and_comes_back() -> None:
    local = coo()
    remote = torch.sparse_coo_tensor(
        local._indices().to(REMOTE), local._values().to(REMOTE), (3, 4)
    )
    for one in (remote, local.to(REMOTE)):
        assert one.device.type == DEVICE
        assert one.layout == torch.sparse_coo
        assert not one.is_coalesced()
        assert torch.equal(one.cpu().to_dense(), local.to_dense())
        assert torch.equal(one.to_dense().cpu(), local.to_dense())
        assert torch.equal(one.coalesce().indices().cpu(), local.coalesce().indices())
        assert torch.equal(one.coalesce().values().cpu(), local.coalesce().values())
    dense = torch.randn(3, 4).relu()
    assert torch.equal(dense.to(REMOTE).to_sparse().cpu().to_dense(), dense)


OPERATIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "add": lambda s: (s + s).to_dense(),
    "add_dense": lambda s: torch.ones(3, 4, device=s.device) + s,
    "sub": lambda s: (s - 2 * s).to_dense(),
    "scaled": lambda s: (s * 3 / 2).to_dense(),
    "mm": lambda s: torch.sparse.mm(s, torch.ones(4, 2, device=s.device)),
    "matmul": lambda s: s @ torch.arange(4.0, device=s.device),
    "addmm": lambda s: torch.addmm(
        torch.ones(3, 2, device=s.device), s, torch.ones(4, 2, device=s.device), beta=2, alpha=3
    ),
    "transpose": lambda s: s.t().to_dense(),
    "sum": lambda s: torch.sparse.sum(s),
    "sum_rows": lambda s: torch.sparse.sum(s, dim=0).to_dense(),
    "sine": lambda s: s.coalesce().sin().to_dense(),
    "mask": lambda s: torch.arange(12.0, device=s.device).reshape(3, 4).sparse_mask(s.coalesce())
    .to_dense(),
    "cat": lambda s: torch.cat([s, s]).to_dense(),
    "softmax": lambda s: torch.sparse.softmax(s.coalesce(), 1).to_dense(),
    "norm": lambda s: s.coalesce().norm(),
    "csr": lambda s: s.coalesce().to_sparse_csr().to_dense(),
    "csr_mm": lambda s: s.coalesce().to_sparse_csr() @ torch.ones(4, 2, device=s.device),
    "bsr": lambda s: torch.ones(4, 4, device=s.device).to_sparse_bsr((2, 2)).to_dense(),
    "csc": lambda s: s.coalesce().to_sparse_csc().to_dense(),
    "select": lambda s: s.coalesce().select(0, 1).to_dense(),
    "double": lambda s: s.double().to_dense(),
    "hybrid": lambda s: torch.sparse_coo_tensor(
        s._indices()[:1], torch.ones(4, 5, device=s.device), (3, 5)
    ).coalesce().to_dense(),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_sparse_tensors_do(name: str) -> None:
    operation = OPERATIONS[name]
    wanted = operation(coo())
    got = operation(coo().to(REMOTE))
    assert got.device.type == DEVICE
    torch.testing.assert_close(got.cpu(), wanted)


def test_gradients_through_a_sparse_product() -> None:
    def gradients(device: str) -> list[torch.Tensor]:
        sparse = coo(coalesced=True).to(device).requires_grad_()
        dense = torch.ones(4, 2, device=device, requires_grad=True)
        torch.sparse.mm(sparse, dense).square().sum().backward()
        assert sparse.grad is not None
        assert dense.grad is not None
        return [sparse.grad.to_dense().cpu(), dense.grad.cpu()]

    torch.testing.assert_close(gradients(REMOTE), gradients("cpu"))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SparseAdam(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
    ],
    ids=["SparseAdam", "SGD", "momentum", "Adagrad"],
)
def test_an_embedding_with_sparse_gradients_trains(optimizer: Callable[[Any], Any]) -> None:
    local = nn.Embedding(50, 8, sparse=True)
    remote = copy.deepcopy(local).to(REMOTE)
    steps = [optimizer(list(model.parameters())) for model in (local, remote)]
    before = genie.stats()["fallback_operators"]
    for _ in range(4):
        for model, step in zip((local, remote), steps, strict=True):
            step.zero_grad()
            tokens = torch.tensor([1, 3, 3, 7], device=model.weight.device)
            model(tokens).square().sum().backward()
            assert model.weight.grad is not None
            assert model.weight.grad.is_sparse
            step.step()
    torch.testing.assert_close(remote.weight.detach().cpu(), local.weight.detach())
    assert genie.stats()["fallback_operators"] == before


def test_the_table_of_a_sparse_embedding_stays_where_it_is() -> None:
    table = nn.Embedding(100_000, 16, sparse=True).to(REMOTE)
    step = torch.optim.SGD(table.parameters(), lr=0.1)
    with Counted() as counted:
        for _ in range(3):
            step.zero_grad()
            table(torch.tensor([5, 6, 5], device=REMOTE)).sum().backward()
            step.step()
        genie.synchronize()
    assert counted.bytes_received < 100_000
    assert counted.bytes_sent < 100_000


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_sparse_tensors_are_saved_and_loaded(layout: str) -> None:
    dense = torch.eye(4)
    made = {"coo": dense.to_sparse(), "csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc()}
    file = io.BytesIO()
    torch.save(made[layout].to(REMOTE), file)
    for target in (None, "cpu", REMOTE):
        file.seek(0)
        loaded = torch.load(file, map_location=target)
        assert loaded.device == torch.device(target or REMOTE)
        assert loaded.layout == made[layout].layout
        assert torch.equal(loaded.cpu().to_dense(), dense)


def test_indices_that_are_no_matrix_are_refused() -> None:
    crow, col = torch.tensor([0, 2, 1], device=REMOTE), torch.tensor([0, 1], device=REMOTE)
    with pytest.raises(RuntimeError, match="crow_indices"):
        torch.sparse_csr_tensor(crow, col, torch.ones(2, device=REMOTE), (2, 2),
                                check_invariants=True)  # fmt: skip
    with pytest.raises(RuntimeError, match="found index"):
        torch.sparse_coo_tensor(
            torch.tensor([[5]], device=REMOTE), torch.ones(1, device=REMOTE), (2,),
            check_invariants=True,
        )  # fmt: skip


# ---- nested ------------------------------------------------------------------------------------


def parts(device: str) -> list[torch.Tensor]:
    """Tensors of two lengths."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((2, 8), (4, 8))
    return [torch.randn(size, generator=generator).to(device) for size in sizes]


NESTED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "padded": lambda n: torch.nested.to_padded_tensor(n, 0.0),
    "linear": lambda n: torch.nested.to_padded_tensor(
        functional.linear(n, torch.ones(3, 8, device=n.device)), 0.0
    ),
    "relu": lambda n: torch.nested.to_padded_tensor(n.relu() + n, 0.0),
    "softmax": lambda n: torch.nested.to_padded_tensor(n.softmax(-1), 0.0),
    "norm": lambda n: torch.nested.to_padded_tensor(
        functional.layer_norm(
            n, (8,), torch.ones(8, device=n.device), torch.zeros(8, device=n.device)
        ),
        0.0,
    ),
    "unbind": lambda n: n.unbind()[1],
    "scaled": lambda n: torch.nested.to_padded_tensor(n * 2, -1.0),
}


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("name", NESTED)
def test_what_nested_tensors_do(name: str, layout: torch.layout) -> None:
    def run(device: str) -> torch.Tensor:
        return NESTED[name](torch.nested.nested_tensor(parts(device), layout=layout))

    got, wanted = run(REMOTE), run("cpu")
    assert got.device.type == DEVICE
    torch.testing.assert_close(got.cpu(), wanted)


def test_attention_over_jagged_tensors_and_its_gradient() -> None:
    def run(device: str) -> list[torch.Tensor]:
        leaves = [torch.ones(n, 2, 8).mul(0.1).to(device).requires_grad_() for n in (2, 3)]
        nested = torch.nested.as_nested_tensor(leaves, layout=torch.jagged).transpose(1, 2)
        out = functional.scaled_dot_product_attention(nested, nested, nested)
        out.values().square().sum().backward()
        return [leaf.grad.cpu() for leaf in leaves if leaf.grad is not None]

    got, wanted = run(REMOTE), run("cpu")
    assert len(got) == 2
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_with_a_padding_mask(norm_first: bool) -> None:
    """PyTorch's own fast path goes by nested tensors: what is padded comes out as zeros."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    local = nn.TransformerEncoder(layer, 2).eval()
    remote = copy.deepcopy(local).to(REMOTE)
    tokens = torch.randn(2, 5, 16)
    mask = torch.tensor([[False, False, False, True, True], [False, False, False, False, True]])
    for switched_off in (torch.no_grad, torch.inference_mode):
        with switched_off():
            wanted = local(tokens, src_key_padding_mask=mask)
            got = remote(tokens.to(REMOTE), src_key_padding_mask=mask.to(REMOTE))
        assert got.shape == wanted.shape
        torch.testing.assert_close(got.cpu(), wanted, atol=1e-5, rtol=1e-5)


# ---- quantised ---------------------------------------------------------------------------------


def test_quantised_tensors() -> None:
    numbers = torch.tensor([-1.0, 0.04, 0.06, 2.0, 300.0])
    for dtype in (torch.quint8, torch.qint8, torch.qint32):
        zero = 10 if dtype == torch.quint8 else 0
        local = torch.quantize_per_tensor(numbers, 0.1, zero, dtype)
        remote = torch.quantize_per_tensor(numbers.to(REMOTE), 0.1, zero, dtype)
        assert remote.device.type == DEVICE
        assert (remote.q_scale(), remote.q_zero_point()) == (0.1, zero)
        assert torch.equal(remote.int_repr().cpu(), local.int_repr())
        assert torch.equal(remote.dequantize().cpu(), local.dequantize())
        for back in (remote.cpu(), local.to(REMOTE).cpu()):
            assert (back.q_scale(), back.q_zero_point()) == (0.1, zero)
            assert torch.equal(back.int_repr(), local.int_repr())
    scales, zeros = torch.tensor([0.1, 0.2]), torch.tensor([0, 1])
    rows = torch.randn(2, 3)
    local = torch.quantize_per_channel(rows, scales, zeros, 0, torch.qint8)
    remote = torch.quantize_per_channel(
        rows.to(REMOTE), scales.to(REMOTE), zeros.to(REMOTE), 0, torch.qint8
    )
    assert torch.equal(remote.dequantize().cpu(), local.dequantize())


# ---- the list of kernels that are taken over ----------------------------------------------------


def test_only_kernels_that_cuda_shares_are_taken_over() -> None:
    """A function that PyTorch registers for CUDA too reads no memory of a device."""
    import torchgen

    yaml = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    header = (Path(__file__).parents[1] / "shim/layout_operators.h").read_text()
    arrays = dict(re.findall(r"> (\w+) = \{(.*?)\};", header, re.DOTALL))
    keys = {"kSparseOperators": "Sparse", "kCompressedOperators": "SparseCsr",
            "kNestedOperators": "NestedTensor"}  # fmt: skip
    assert arrays.keys() == keys.keys()
    functions = re.split(r"\n(?=- func:)", yaml.read_text())
    for array, key in keys.items():
        shared = set()
        for function in functions:
            name = re.match(r"\s*- func: ([\w.]+)\(", function)
            for keyed in re.findall(r"^ +([\w, ]+): \w+(?: #.*)?$", function, re.MULTILINE):
                if name and {f"{key}CPU", f"{key}CUDA"} <= set(keyed.split(", ")):
                    shared.add(name[1])
        assert set(re.findall(r'"([\w.]+)"', arrays[array])) == shared
