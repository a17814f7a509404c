"""In pools, too, what the program will look at is asked for before: by the devices that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import genie
import pytest
import torch
from daemon import Daemon
from support import REMOTE, counted, to_cpu
from test_ahead import (
    check_a_failure_meanwhile,
    check_what_is_written_meanwhile,
    layers,
    trained,
)

ONE_THREAD = "host:0?threads=1"


@pytest.fixture
def nodes(make_daemon: Callable[..., Daemon]) -> Iterator[list[Daemon]]:
    genie.disconnect()
    yield [make_daemon(device=ONE_THREAD) for _ in range(2)]
    genie.disconnect()


def connect(nodes: list[Daemon], policy: str) -> None:
    addresses = [node.address for node in nodes]
    genie.connect(addresses, placement="pool", policy=policy)


@pytest.mark.parametrize("policy", ["locality", "random:7", "semantic"])
def test_a_state_dictionary_costs_a_round_trip_a_device(nodes: list[Daemon], policy: str) -> None:
    connect(nodes, policy)
    local = layers()
    remote = layers().to(REMOTE)
    remote.load_state_dict(local.state_dict())
    found, count = counted(lambda: to_cpu(remote.state_dict()))
    torch.testing.assert_close(found, dict(local.state_dict()), rtol=0, atol=0)
    assert count.round_trips <= 2
    assert count.round_trips + count.fetched_ahead == 60
    # What training made lies where it was computed.
    optimizer = trained(remote)
    wanted = [{k: v.cpu() for k, v in one.items()} for one in optimizer.state.values()]
    found, count = counted(lambda: to_cpu(optimizer.state_dict()["state"]))
    torch.testing.assert_close(list(found.values()), wanted, rtol=0, atol=0)
    assert count.round_trips <= 2


@pytest.mark.parametrize("policy", ["locality", "random:7"])
def test_numbers_in_a_loop(nodes: list[Daemon], policy: str) -> None:
    connect(nodes, policy)
    losses = [(torch.ones(3, device=REMOTE) * i).sum() for i in range(100)]
    found, count = counted(lambda: [loss.item() for loss in losses])
    assert found == [3.0 * i for i in range(100)]
    assert count.round_trips + count.fetched_ahead == 100
    # With chance every second one lies elsewhere, and only what lies where it looks is asked for.
    assert count.round_trips <= (4 if policy == "locality" else 60)


@pytest.mark.parametrize("policy", ["locality", "random:7"])
def test_what_is_written_and_freed_meanwhile(nodes: list[Daemon], policy: str) -> None:
    connect(nodes, policy)

    def elsewhere(number: int, state: dict[str, torch.Tensor]) -> None:
        """Copies come and go."""
        if number % 11 == 5:
            names = list(state)
            (state[names[-3]] * 2 @ state[names[-5]]).sum().item()

    check_what_is_written_meanwhile(elsewhere)
    values = [torch.full((4,), float(i), device=REMOTE) for i in range(40)]
    numbers = [float(i) for i in range(40)]
    while values:
        assert values.pop(0)[0].item() == numbers.pop(0)
        del values[2:3], numbers[2:3]


def test_a_failure_meanwhile_is_raised_at_the_next_look(nodes: list[Daemon]) -> None:
    connect(nodes, "locality")
    check_a_failure_meanwhile()


def test_a_node_that_is_lost_meanwhile(nodes: list[Daemon]) -> None:
    connect(nodes, "random:7")
    values = [(torch.ones(4, device=REMOTE) * i) for i in range(60)]
    expected = [float(i) for i in range(60)]
    genie.synchronize()
    holder = {genie.where(value).device.node for value in values}
    assert holder == {node.address for node in nodes}
    assert values[0].tolist() == [0.0] * 4
    nodes[1].kill()
    lost = 0
    for value, number in zip(values, expected, strict=True):
        try:
            assert value.tolist() == [number] * 4
        except genie.NodeLostError:
            lost += 1
    assert 0 < lost < 60
