"""Whoever keeps a generator's state and goes back to it gets the same numbers again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from support import REMOTE
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

pytestmark = pytest.mark.usefixtures("session")
module: Any = torch.remote_accelerator  # type: ignore[attr-defined]


def dropped(t: torch.Tensor) -> torch.Tensor:
    return F.dropout(t, 0.5)


def nested(t: torch.Tensor) -> torch.Tensor:
    inner = checkpoint(dropped, t * 1, use_reentrant=False)
    return checkpoint(dropped, inner, use_reentrant=False)


def leaf(n: int = 1000) -> torch.Tensor:
    return torch.ones(n, device=REMOTE, requires_grad=True)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("work", [dropped, nested], ids=["one", "nested"])
def test_checkpointed_dropout(
    work: Callable[[torch.Tensor], torch.Tensor], reentrant: bool
) -> None:
    x = leaf()
    y = checkpoint(work, x, use_reentrant=reentrant)
    after = torch.rand(3, device=REMOTE)
    module.set_rng_state(module.get_rng_state())
    y.sum().backward()
    assert 100 < int((y == 0).sum()) < 900
    # The gradient of ones through dropout is the dropout's own result on ones.
    assert torch.equal(y.detach().cpu(), x.grad.cpu())
    # Recomputing has not moved the generator.
    state = module.get_rng_state()
    assert int(state.view(torch.int64)[1]) > 0
    assert not torch.equal(torch.rand(3, device=REMOTE).cpu(), after.cpu())


def test_without_its_state_a_checkpoint_draws_anew() -> None:
    x = leaf()
    y = checkpoint(dropped, x, use_reentrant=False, preserve_rng_state=False)
    y.sum().backward()
    assert not torch.equal(y.detach().cpu(), x.grad.cpu())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers(reentrant: bool) -> None:
    layers = torch.nn.Sequential(*(torch.nn.Dropout(0.3) for _ in range(6)))
    x = leaf()
    y = checkpoint_sequential(layers, 3, x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(y.detach().cpu(), x.grad.cpu())


def test_what_happens_between_forward_and_backward_does_not_matter() -> None:
    x = leaf()
    y = checkpoint(lambda t, scale: dropped(t) * scale, x, 2.0, use_reentrant=False)
    torch.manual_seed(99)
    torch.rand(5, device=REMOTE)
    before = module.get_rng_state()
    y.sum().backward()
    assert torch.equal(module.get_rng_state(), before)
    assert torch.equal(y.detach().cpu(), x.grad.cpu())


@pytest.mark.parametrize("devices", [None, [0], [REMOTE], [torch.device(REMOTE)]], ids=str)
def test_fork_rng(devices: Any) -> None:
    torch.manual_seed(5)
    state = module.get_rng_state()
    with torch.random.fork_rng(devices=devices, device_type="remote_accelerator"):
        first = torch.rand(4, device=REMOTE).cpu()
        torch.manual_seed(6)
    assert torch.equal(module.get_rng_state(), state)
    assert torch.equal(torch.rand(4, device=REMOTE).cpu(), first)


@pytest.mark.parametrize(
    "name", [0, REMOTE, "remote_accelerator", torch.device(REMOTE), None], ids=str
)
def test_states_by_any_name_of_a_device(name: Any) -> None:
    state = module.get_rng_state(name)
    assert state.dtype is torch.uint8
    assert state.device.type == "cpu"
    first = torch.rand(4, device=REMOTE).cpu()
    module.set_rng_state(state, name)
    assert torch.equal(torch.rand(4, device=REMOTE).cpu(), first)


def test_states_of_all_devices() -> None:
    states = module.get_rng_state_all()
    assert len(states) == module.device_count() == 1
    first = torch.rand(4, device=REMOTE).cpu()
    module.seed_all()
    assert not torch.equal(torch.rand(4, device=REMOTE).cpu(), first)
    module.set_rng_state_all(states)
    assert torch.equal(torch.rand(4, device=REMOTE).cpu(), first)
    module.manual_seed_all(77)
    assert module.initial_seed() == 77


def test_a_device_that_can_not_be() -> None:
    for wrong in (-1, 128, 300):
        with pytest.raises(RuntimeError, match="does not exist"):
            module.get_rng_state(wrong)
    with pytest.raises(ValueError, match="expected a remote_accelerator"):
        module.get_rng_state("cpu")


def test_generators_before_a_connect(daemon: Any) -> None:
    genie.disconnect()
    try:
        assert module._initialized
        assert not module.is_initialized()
        module.manual_seed_all(11)
        states = module.get_rng_state_all()
        assert len(states) == 1
    finally:
        genie.connect(daemon.address)
    first = torch.rand(4, device=REMOTE).cpu()
    module.set_rng_state_all(states)
    assert torch.equal(torch.rand(4, device=REMOTE).cpu(), first)
