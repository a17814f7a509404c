"""Level 0: packets arrive in the device's memory, and the device places what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import genie
import pytest
import torch
from linked import Linked, make_linked
from support import REMOTE, check_resnet, there_and_back, wait_until
from veth import gateway_on, node_on, skip_if_missing, veth

SIZES = (100, 20_000, (20 << 20) + 5)


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Linked]:
    """A pair whose frames are not sealed, and this process connected through it."""
    made = make_linked(tmp_path, "--dpdk-seal", "false")
    try:
        wait_until(lambda: "level 0" in made.node.log(), 10, "level 0")
        genie.connect(made.gateway.address)
        yield made
    finally:
        genie.disconnect()
        made.stop()


def gathered(linked: Linked) -> int:
    """Frames of which the node's device placed the data."""
    return linked.node.metric("genie_link_frames_gathered_total")


def test_the_device_places_every_byte(direct: Linked) -> None:
    """All that is no small message: more frames than the bytes have of 9000."""
    assert "received in the memory of host:0" in direct.node.status()["transport_reason"]
    assert genie.stats()["transport"] == "dpdk"
    sent = there_and_back(*SIZES)
    assert gathered(direct) >= sent // 9000


def test_models_are_equal(direct: Linked) -> None:
    """Weights that the device placed."""
    check_resnet()
    assert gathered(direct) > 0


def test_a_second_session_begins_where_the_first_ended(direct: Linked) -> None:
    """What one left with the device is none of the next one's."""
    torch.ones(1 << 20).to(REMOTE)
    genie.disconnect()
    before = gathered(direct)
    genie.connect(direct.gateway.address)
    sent = there_and_back(*SIZES)
    assert gathered(direct) >= before + sent // 9000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--dpdk-seal", "false", "--dpdk-receive", "staged"), "dpdk_receive is set to staged"),
        ((), "the CPU opens sealed frames"),
    ],
    ids=["staged", "sealed"],
)
def test_what_the_device_does_not_place_is_level_one_with_the_reason(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    """As the operator wants it, or since a device does not open what is sealed."""
    made = make_linked(tmp_path, *arguments)
    try:
        wait_until(lambda: "level 1" in made.node.log(), 10, "level 1")
        assert f"not direct: {reason}" in made.node.log()
        genie.connect(made.gateway.address)
        there_and_back(*SIZES)
        assert gathered(made) == 0
    finally:
        genie.disconnect()
        made.stop()


@pytest.mark.parametrize(
    ("driver", "level"),
    [
        ("af_packet", "level 0 (DPDK, direct)"),
        ("af_xdp", "level 1 (DPDK, staged)"),
    ],
)
def test_a_port_that_takes_no_other_memory_is_level_one_with_the_reason(
    driver: str, level: str, tmp_path: Path
) -> None:
    """AF_PACKET copies into any packet; the kernel writes AF_XDP's into the port's own pool."""
    with veth() as wire, node_on(wire, driver, tmp_path, "--dpdk-seal", "false") as node:
        skip_if_missing(node)
        wait_until(lambda: level in node.log(), 10, level)
        reason = "not direct: " in node.log() and "into the port's own pool" in node.log()
        assert reason == (driver == "af_xdp"), node.log()
        gateway, address = gateway_on(wire, driver, tmp_path)
        with gateway:
            wait_until(lambda: "level 1" in gateway.log(), 10, "the link is up")
            genie.connect(address)
            try:
                there_and_back(*SIZES)
                assert genie.stats()["transport"] == "dpdk", gateway.log()
            finally:
                genie.disconnect()
