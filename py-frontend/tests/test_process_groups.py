"""``torch.distributed``: gloo for CPU tensors, beside remote ones that no process group takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
import torch.distributed as dist
from daemon import Daemon
from support import REMOTE
from torch import nn
from torch.distributed import _functional_collectives as functional
from torch.distributed.nn import functional as in_a_graph

REFUSED = "no process group for remote tensors yet.*genie.connect.*gloo"


def begin(backend: str | None, **options: Any) -> None:
    """Makes this process the only one of a group."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, **options)


@pytest.fixture(autouse=True)
def no_group_stays() -> Iterator[None]:
    """Ends the group that a test began."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def group(session: Daemon) -> None:
    """A process group of gloo."""
    begin("gloo")


def in_one_of_two(rank: int, file: str, address: str) -> None:
    """What each of two processes does, with a session of its own."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    genie.connect(address)
    dist.init_process_group(init_method=f"file://{file}", rank=rank, world_size=2)
    remote = torch.full((3,), rank + 1.0, device=REMOTE)
    with pytest.raises(genie.ProcessGroupError, match=REFUSED):
        dist.all_reduce(remote)
    with pytest.raises(genie.ProcessGroupError, match=REFUSED):
        dist.send(remote, 1 - rank) if rank else dist.recv(remote, 1 - rank)
    # What the message says to do.
    summed = remote.cpu()
    dist.all_reduce(summed)
    assert summed.to(remote.device).tolist() == [3, 3, 3]
    gathered: list[Any] = [None, None]
    dist.all_gather_object(gathered, {"rank": rank, "tensor": remote})
    assert [one["tensor"].tolist() for one in gathered] == [[1, 1, 1], [2, 2, 2]]
    dist.barrier(device_ids=[0])
    torch.manual_seed(rank)
    model = nn.parallel.DistributedDataParallel(nn.Linear(3, 1))
    (model(torch.ones(3)) * (rank + 1)).sum().backward()
    assert model.module.weight.grad.tolist() == [[1.5, 1.5, 1.5]]
    with pytest.raises(genie.ProcessGroupError, match=REFUSED):
        nn.parallel.DistributedDataParallel(nn.Linear(3, 1).to(REMOTE))
    dist.destroy_process_group()


def test_two_processes(daemon: Daemon, tmp_path: Path) -> None:
    from torch import multiprocessing

    arguments = (str(tmp_path / "store"), daemon.address)
    multiprocessing.spawn(in_one_of_two, arguments, nprocs=2)


def test_without_a_backend_it_is_gloo(session: Daemon) -> None:
    assert dist.get_default_backend_for_device("remote_accelerator") == "gloo"
    begin(None)
    local = torch.ones(2)
    dist.all_reduce(local)
    dist.barrier()
    assert local.tolist() == [1, 1]
    with pytest.raises(genie.ProcessGroupError, match=REFUSED):
        dist.all_reduce(local.to(REMOTE))


@pytest.mark.usefixtures("group")
def test_checkpoints_of_remote_models_go_by_gloo(tmp_path: Path) -> None:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    saved, loaded, told = (nn.Linear(3, 3).to(REMOTE) for _ in range(3))
    checkpoint.async_save({"model": saved.state_dict()}, checkpoint_id=tmp_path).result()
    found: dict[str, Any] = {"model": loaded.state_dict()}
    checkpoint.load(found, checkpoint_id=tmp_path)
    loaded.load_state_dict(found["model"])
    assert torch.equal(loaded.weight, saved.weight)
    everywhere = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    local = {name: value.cpu() for name, value in saved.state_dict().items()}
    set_model_state_dict(told, local, options=everywhere)
    assert torch.equal(told.weight, saved.weight)


def test_gloo_that_is_asked_for_remote_tensors_reads_no_fake_address(session: Daemon) -> None:
    """It would: it looks at the device in all that it does but to send and to receive."""
    begin("cpu:gloo,remote_accelerator:gloo")
    remote = torch.ones(3, device=REMOTE)
    for ask in (dist.group.WORLD.send, dist.group.WORLD.recv):  # type: ignore[union-attr]
        with pytest.raises(genie.ProcessGroupError, match=REFUSED):
            ask([remote], 0, 0)
    dist.barrier(device_ids=[0])


def test_a_group_of_one_device_is_refused(session: Daemon) -> None:
    for backend in (None, "gloo"):
        with pytest.raises(genie.ProcessGroupError, match=REFUSED):
            begin(backend, device_id=torch.device(REMOTE))
        assert not dist.is_initialized()


Collective = Callable[[torch.Tensor], Any]
COLLECTIVES: dict[str, Collective] = {
    "all_gather": lambda x: dist.all_gather([x.clone()], x),
    "all_gather_into_tensor": lambda x: dist.all_gather_into_tensor(x.clone(), x),
    "all_reduce": dist.all_reduce,
    "all_reduce, async": lambda x: dist.all_reduce(x, async_op=True),
    "all_reduce, in a graph": lambda x: in_a_graph.all_reduce(x.requires_grad_()),
    "all_reduce, sparse": lambda x: dist.all_reduce(x.to_sparse()),
    "all_reduce, compressed": lambda x: dist.all_reduce(x[None].to_sparse_csr()),
    "all_to_all": lambda x: dist.all_to_all([x.clone()], [x]),
    "all_to_all_single": lambda x: dist.all_to_all_single(x.clone(), x),
    "batch_isend_irecv": lambda x: dist.batch_isend_irecv([dist.P2POp(dist.isend, x, 0)]),
    "broadcast": lambda x: dist.broadcast(x, 0),
    "functional all_gather": lambda x: functional.all_gather_tensor(x, 0, dist.group.WORLD) + 1,
    "functional all_reduce": lambda x: functional.all_reduce(x, "sum", dist.group.WORLD) + 1,
    "gather": lambda x: dist.gather(x, [x.clone()]),
    "isend": lambda x: dist.group.WORLD.send([x], 0, 0),  # type: ignore[union-attr]
    "irecv": lambda x: dist.irecv(x),
    "recv": lambda x: dist.group.WORLD.recv([x], 0, 0),  # type: ignore[union-attr]
    "reduce": lambda x: dist.reduce(x, 0),
    "reduce_scatter": lambda x: dist.reduce_scatter(x.clone(), [x]),
    "reduce_scatter_tensor": lambda x: dist.reduce_scatter_tensor(x.clone(), x),
    "scatter": lambda x: dist.scatter(x.clone(), [x]),
}


@pytest.mark.parametrize("name", COLLECTIVES)
@pytest.mark.usefixtures("group")
def test_a_collective_of_remote_tensors_says_what_to_use(name: str) -> None:
    with pytest.raises(genie.ProcessGroupError, match=REFUSED):
        COLLECTIVES[name](torch.ones(4, device=REMOTE))


def test_each_operator_of_process_groups_is_refused() -> None:
    """So that what a later PyTorch adds isn't forgotten."""
    from genie._distributed import _OPERATORS

    found = {
        name.removeprefix("c10d::").split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("c10d::")
    }
    assert found - set(_OPERATORS) == {"barrier", "monitored_barrier_"}


@pytest.mark.usefixtures("group")
def test_what_is_built_of_collectives_says_so_too() -> None:
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    layer = nn.Linear(3, 3).to(REMOTE)
    mesh = DeviceMesh("remote_accelerator", [0])
    zero = ZeroRedundancyOptimizer(layer.parameters(), torch.optim.SGD, lr=0.1)
    layer(torch.ones(3, device=REMOTE)).sum().backward()
    for ask in (
        lambda: nn.parallel.DistributedDataParallel(layer),
        lambda: nn.parallel.DistributedDataParallel(layer, device_ids=[0]),
        lambda: fully_shard(layer),
        lambda: init_device_mesh("remote_accelerator", (1,)),
        lambda: distribute_tensor(layer.weight, mesh, [Shard(0)]),
        lambda: distribute_tensor(layer.weight, mesh, [Replicate()]),
        lambda: zero.step(),
    ):
        with pytest.raises(genie.ProcessGroupError, match=REFUSED):
            ask()
    assert init_device_mesh("cpu", (1,)).size() == 1


def test_a_backend_that_somebody_registers_is_asked(session: Daemon) -> None:
    """Those of `torch.distributed` that know the device go before this."""
    from torch.testing._internal.distributed import fake_pg

    dist.init_process_group(
        "cpu:fake,remote_accelerator:fake", store=fake_pg.FakeStore(), rank=0, world_size=2
    )
    dist.all_reduce(torch.ones(3, device=REMOTE))
    dist.barrier()
