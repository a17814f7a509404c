"""A failure is raised at the next look, as at its operator, and nothing older is lost."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import genie
import pytest
import torch
from support import REMOTE

if TYPE_CHECKING:
    from collections.abc import Callable

SINGULAR = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])


def out_of_range() -> torch.Tensor:
    """An operator that fails on the node, where no shape tells."""
    table = torch.ones(4, 2, device=REMOTE)
    return torch.nn.functional.embedding(torch.tensor([1, 99]).to(REMOTE), table)


# ---- what fails without a result is heard ------------------------------------------------------


@pytest.mark.parametrize(
    "run",
    [
        lambda d: torch.linalg.cholesky(INDEFINITE.to(d)),
        lambda d: torch.linalg.inv(SINGULAR.to(d)),
        lambda d: torch.linalg.solve(SINGULAR.to(d), torch.ones(2).to(d)),
        lambda d: torch.linalg.cholesky_ex(INDEFINITE.to(d), check_errors=True)[0],
        lambda d: torch.linalg.inv_ex(SINGULAR.to(d), check_errors=True)[0],
        lambda d: torch.linalg.svd(torch.full((2, 2), float("nan")).to(d))[1],
    ],
    ids=["cholesky", "inv", "solve", "cholesky_ex", "inv_ex", "svd"],
)
@pytest.mark.parametrize("look", ["cpu", "item", "synchronize"])
def test_linalg_raises_what_pytorch_raises(
    session: Any, run: Callable[[Any], torch.Tensor], look: str
) -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        run("cpu")
    with pytest.raises(torch.linalg.LinAlgError):
        result = run(REMOTE)
        if look == "cpu":
            result.cpu()
        elif look == "item":
            result.sum().item()
        else:
            genie.synchronize()
    # It was raised once; the session goes on.
    assert (torch.ones(2, device=REMOTE) + 1).tolist() == [2, 2]


def test_an_assertion_on_the_device_is_heard_by_any_look(session: Any) -> None:
    torch._assert_async(torch.zeros(1, device=REMOTE).any(), "not so")
    other = torch.ones(2, device=REMOTE)
    with pytest.raises(RuntimeError, match="not so"):
        other.cpu()
    assert other.tolist() == [1, 1]


def test_an_index_out_of_range_is_an_index_error(session: Any) -> None:
    kinds = []
    for device in ("cpu", REMOTE):
        x = torch.arange(4.0).to(device)
        with pytest.raises(Exception) as caught:
            x[torch.tensor([9]).to(device)].sum().item()
        kinds.append(caught.type)
    assert kinds[0] is kinds[1] is IndexError


def test_the_error_names_the_operator_and_its_own_line(session: Any) -> None:
    torch.ones(1, device=REMOTE)
    frame = inspect.currentframe()
    assert frame is not None
    bad = torch.nn.functional.embedding(torch.tensor([99]).to(REMOTE), torch.ones(4, 2).to(REMOTE))
    line = frame.f_lineno - 1
    later = bad + 1
    with pytest.raises(IndexError, match=rf"aten::embedding.*line {line}\b") as caught:
        later.cpu()
    assert "aten::embedding" in str(caught.value)


# ---- what is older than a fault is as it was ---------------------------------------------------


def test_writes_after_a_fault_are_undone_when_it_is_raised(session: Any) -> None:
    old = torch.zeros(3, device=REMOTE)
    part = torch.zeros(6, device=REMOTE)
    bad = out_of_range()
    old += 1  # does not depend on it
    part[2:4] = bad.sum()  # does
    new = torch.full((3,), 5.0, device=REMOTE)
    new += 1
    old.copy_(torch.full((3,), 9.0))
    with pytest.raises(IndexError):
        bad.cpu()
    assert old.tolist() == [0, 0, 0]
    assert part.tolist() == [0] * 6
    assert new.tolist() == [6, 6, 6]
    old += 1
    part[2:4] = 7
    assert old.tolist() == [1, 1, 1]
    assert part.tolist() == [0, 0, 7, 7, 0, 0]


def test_what_is_newer_keeps_what_it_was_before_a_write_that_failed(session: Any) -> None:
    bad = out_of_range()
    moments = torch.zeros(2, device=REMOTE)
    moments.lerp_(bad[0], 0.1)
    with pytest.raises(IndexError):
        moments.cpu()
    assert moments.tolist() == [0, 0]


@pytest.mark.parametrize(
    "heal",
    [
        lambda x: x.zero_(),
        lambda x: x.fill_(3),
        lambda x: x.copy_(torch.ones(2, 2)),
        lambda x: x.copy_(torch.ones(2, 2, device=REMOTE)),
        lambda x: x.normal_(),
        lambda x: x.uniform_(),
        lambda x: torch.add(torch.ones(2, 2, device=REMOTE), 1, out=x),
        lambda x: torch._foreach_zero_([x]),
        lambda x: x.t().zero_(),
    ],
    ids=[
        "zero",
        "fill",
        "upload",
        "copy",
        "normal",
        "uniform",
        "out",
        "foreach_zero",
        "transposed",
    ],
)
def test_overwriting_heals(session: Any, heal: Callable[[torch.Tensor], object]) -> None:
    bad = out_of_range()
    with pytest.raises(IndexError):
        bad.cpu()
    with pytest.raises(IndexError):  # what never was stays unusable
        (bad + 1).cpu()
    heal(bad)
    assert torch.isfinite(bad.cpu()).all()


def test_overwriting_a_part_does_not_heal(session: Any) -> None:
    bad = out_of_range()
    with pytest.raises(IndexError):
        bad.cpu()
    bad[0].zero_()
    with pytest.raises(IndexError):
        bad.cpu()


# ---- training ----------------------------------------------------------------------------------


def model() -> torch.nn.Sequential:
    torch.manual_seed(5)
    return torch.nn.Sequential(
        torch.nn.Embedding(50, 16), torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4)
    )


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamw_loop": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
    "adam_fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
}


@pytest.mark.parametrize("name", list(OPTIMISERS))
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("fails_at", [0, 2])
def test_a_bad_index_in_a_step_costs_that_step(
    session: Any, name: str, set_to_none: bool, fails_at: int
) -> None:
    local = model()
    remote = copy.deepcopy(local).to(REMOTE)
    results = []
    for net, device in ((local, "cpu"), (remote, REMOTE)):
        optimiser = OPTIMISERS[name](net.parameters())
        losses = []
        for step in range(5):
            tokens = torch.arange(8) + step
            if step == fails_at:
                tokens[3] = 77
            optimiser.zero_grad(set_to_none=set_to_none)
            try:
                loss = net(tokens.to(device)).square().mean()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
            except IndexError:
                losses.append(float("nan"))
        results.append((losses, [p.detach().cpu() for p in net.parameters()]))
    (losses, weights), (remote_losses, remote_weights) = results
    if name in ("adamw", "adamw_loop") and fails_at > 0:
        # Adam's own counter of steps is on the CPU and has counted the failed one.
        assert all(w.isfinite().all() for w in remote_weights)
        assert [x == x for x in losses] == [x == x for x in remote_losses]
        return
    torch.testing.assert_close(remote_losses, losses, equal_nan=True, rtol=1e-5, atol=1e-5)
    if name == "sgd":
        for ours, theirs in zip(remote_weights, weights, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
