"""What is known of a tensor, which module made it, and waiting for some."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from support import REMOTE, Counted, assert_same
from torch import nn

pytestmark = pytest.mark.usefixtures("session")


def said(tensor: torch.Tensor) -> dict[str, str]:
    return {key: one.value for key, one in genie.inspect(tensor).annotations.items()}


def make() -> torch.Tensor:
    return torch.ones(2, device=REMOTE) + 1


# ---- inspect and materialize --------------------------------------------------------------------


def test_what_is_known_of_a_tensor(session: Any) -> None:
    whole = torch.zeros(4, 6, dtype=torch.float16, device=REMOTE)
    part = whole.t()[1:3]
    sent = []
    for _ in range(3):
        # What was recorded leaves by itself, and a heartbeat may.
        genie.synchronize()
        with Counted() as counted:
            found = genie.inspect(part)
        sent.append(counted.messages_sent)
    assert min(sent) == 0
    assert found.state == "pending"
    assert found.place == genie.where(part)
    assert found.place.device is not None
    assert found.place.device.node == session.address
    assert (found.dtype, found.shape, found.stride) == (torch.float16, (2, 4), (1, 6))
    assert (found.nbytes, found.storage_nbytes) == (16, 48)
    assert found.annotations == {}


def test_materialising_a_tree_takes_one_round_trip() -> None:
    tree = {"a": [make(), make()], "b": (make(), 3), "c": torch.ones(2)}
    with Counted() as counted:
        assert genie.materialize(tree) is tree
    assert counted.round_trips == 1
    for tensor in (*tree["a"], tree["b"][0]):
        assert genie.inspect(tensor).state == "materialised"
    with Counted() as counted:
        genie.materialize([torch.ones(2), None])
    assert counted.round_trips == 0


def test_a_write_makes_a_tensor_pending_again() -> None:
    x = genie.materialize(make())
    x.view(-1).add_(1)
    assert genie.inspect(x).state == "pending"
    assert genie.inspect(genie.materialize(x)).state == "materialised"
    assert genie.inspect(x + 1).state == "pending"
    # Nobody counts what is written in inference mode.
    with torch.inference_mode():
        assert genie.inspect(genie.materialize(make())).state == "pending"


def test_waiting_raises_what_failed() -> None:
    bad = torch.gather(torch.ones(2, 2, device=REMOTE), 1, torch.full((1, 1), 9, device=REMOTE))
    with pytest.raises(genie.RemoteOperatorError, match="gather"):
        genie.materialize(bad)
    assert genie.inspect(bad).state == "pending"


def test_what_is_not_there_says_so(make_client: Callable[..., Any], session: Any) -> None:
    with pytest.raises(TypeError, match="cpu"):
        genie.inspect(torch.ones(2))
    client = make_client(
        f"""
        stale = torch.ones(2, device="{REMOTE}")
        genie.materialize(stale)
        genie.disconnect()
        genie.connect({session.address!r})
        for ask in (genie.inspect, genie.materialize):
            try:
                ask(stale)
            except genie.StaleTensorError:
                print("stale")
        """,
        address=session.address,
    )
    client.expect("stale")
    client.expect("stale")
    client.finish()


# ---- module paths -------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
            self.seen.append(x)
        return x * 2


def test_a_tensor_knows_its_module() -> None:
    model, before = Model().to(REMOTE), nn.Module.__call__
    x = torch.ones(1, 2, device=REMOTE)
    with genie.module_paths(model):
        with genie.annotate(phase="forward"):
            result = model(x)
        with pytest.raises(RuntimeError):
            model(torch.ones(1, 3, device=REMOTE))
        assert said(make()) == {}
    assert said(result) == {"module": "Model", "phase": "forward"}
    paths = [said(one)["module"] for one in model.seen]
    assert paths == ["Model.layers.0", "Model.layers.1"]
    assert said(model(x)) == {}
    assert nn.Module.__call__ is before


def test_copies_are_other_modules() -> None:
    model = Model().to(REMOTE)
    x = torch.ones(1, 2, device=REMOTE)
    with genie.module_paths(model):
        for other in (copy.deepcopy(model), copy.copy(model)):
            other.layers = nn.ModuleList([nn.Flatten()]).to(REMOTE)
            assert said(other(x)) == {}
            assert_same(other(x), x.cpu() * 2)
        assert said(pickle.loads(pickle.dumps(Model()))(torch.ones(1, 2)).to(REMOTE)) == {}


def test_blocks_may_end_in_any_order() -> None:
    before = nn.Module.__call__
    first, second = Model().to(REMOTE), Model().to(REMOTE)
    x = torch.ones(1, 2, device=REMOTE)
    one, two = genie.module_paths(first), genie.module_paths(second)
    one.remove()
    assert (said(first(x)), said(second(x))) == ({}, {"module": "Model"})
    two.remove()
    assert (said(first(x)), said(second(x))) == ({}, {})
    # What was in the way stays where it was put, and does nothing.
    nn.Module.__call__ = before


def test_what_is_compiled_has_no_modules() -> None:
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).to(REMOTE)
    x = torch.ones(1, 2, device=REMOTE)
    wanted = model(x).cpu()
    with genie.module_paths(model):
        for _ in range(2):
            result = torch.compile(model, backend="genie")(x)
            assert_same(result, wanted)
