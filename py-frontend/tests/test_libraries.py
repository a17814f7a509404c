"""Libraries that know their devices by name, and torch's own ways between processes and files."""

from __future__ import annotations

import io
import queue
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from support import DEVICE, REMOTE
from torch import nn

pytestmark = pytest.mark.usefixtures("session")


def test_safetensors_reads_to_the_device(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, load_model, save_file, save_model

    file = tmp_path / "one.safetensors"
    wanted = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    save_file({name: tensor.to(REMOTE) for name, tensor in wanted.items()}, file)
    for device in (DEVICE, REMOTE, torch.device(REMOTE)):
        found = load_file(file, device=device)
        assert found.keys() == wanted.keys()
        for name, tensor in found.items():
            assert tensor.device.type == DEVICE
            assert torch.equal(tensor.cpu(), wanted[name])
    assert load_file(file)["a"].device.type == "cpu"
    with safe_open(file, "pt", device=REMOTE) as opened:
        assert sorted(opened.keys()) == ["a", "b"]
        assert opened.get_tensor("a").device.type == DEVICE
        part = opened.get_slice("a")
        assert part.get_shape() == [2, 3]
        assert part[:, 1:].tolist() == [[1, 2], [4, 5]]
        assert part[1].device.type == DEVICE
    model, other = nn.Linear(3, 3).to(REMOTE), nn.Linear(3, 3).to(REMOTE)
    save_model(model, str(tmp_path / "model.safetensors"))
    load_model(other, tmp_path / "model.safetensors", device=REMOTE)
    assert torch.equal(other.weight, model.weight)
    with pytest.raises(Exception, match="nowhere"):
        load_file(file, device="nowhere")


def test_a_checkpoint_of_torch_distributed(tmp_path: Path) -> None:
    from torch.distributed import checkpoint

    model = nn.Linear(3, 3).to(REMOTE)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, device=REMOTE)).sum().backward()
    optimizer.step()
    saved = {"model": model.state_dict(), "step": optimizer.state_dict()}
    checkpoint.save(saved, checkpoint_id=tmp_path)
    other = nn.Linear(3, 3).to(REMOTE)
    loaded: dict[str, Any] = {"model": other.state_dict()}
    checkpoint.load(loaded, checkpoint_id=tmp_path)
    other.load_state_dict(loaded["model"])
    assert torch.equal(other.weight.cpu(), model.weight.detach().cpu())


def test_tensors_go_to_other_processes_by_their_values() -> None:
    from torch import multiprocessing

    sent = multiprocessing.get_context("spawn").Queue()
    parameter = nn.Parameter(torch.ones(2, device=REMOTE))
    for tensor in (torch.arange(3, device=REMOTE), parameter, torch.ones(1)):
        sent.put(tensor)
    found = [sent.get(timeout=10) for _ in range(3)]
    assert [one.device.type for one in found] == [DEVICE, DEVICE, "cpu"]
    assert found[0].tolist() == [0, 1, 2]
    assert isinstance(found[1], nn.Parameter)
    found[0].add_(1)
    with pytest.raises(queue.Empty):
        sent.get(timeout=0.01)


def test_a_tensor_is_loaded_to_the_device_before_the_first_one_is_made() -> None:
    file = io.BytesIO()
    torch.save({"x": torch.ones(3)}, file)
    for target in (DEVICE, REMOTE, torch.device(REMOTE)):
        file.seek(0)
        assert torch.load(file, map_location=target)["x"].device.type == DEVICE


@pytest.mark.parametrize("shape", [(1 << 25,), (1 << 12, 1 << 13), (40, 50, 60), (1500, 2), (3,)])
def test_only_what_is_shown_is_fetched(shape: tuple[int, ...]) -> None:
    local = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    remote = local.to(REMOTE)
    before = genie.stats()
    shown = repr(remote)
    after = genie.stats()
    assert shown.split("device=")[0].rstrip(" ,\n") == repr(local).rstrip(")")
    assert after["bytes_received"] - before["bytes_received"] < 200_000
    assert after["round_trips"] - before["round_trips"] <= 2


def test_operators_of_torchvision_compute_in_float32_under_autocast() -> None:
    from torchvision import ops

    torch.manual_seed(3)
    corner = torch.rand(6, 2) * 8
    boxes, scores = torch.cat([corner, corner + 6], 1), torch.rand(6)
    images = torch.randn(1, 3, 16, 16)
    kept = ops.nms(boxes, scores.bfloat16().float(), 0.3)
    regions = ops.roi_align(images.bfloat16().float(), [boxes], 3)
    pooled = ops.roi_pool(images.bfloat16().float(), [boxes], 3)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        there = ops.nms(boxes.to(REMOTE), scores.bfloat16().to(REMOTE), 0.3)
        assert there.tolist() == kept.tolist()
        halves = images.bfloat16().to(REMOTE)
        for operator, wanted in ((ops.roi_align, regions), (ops.roi_pool, pooled)):
            got = operator(halves, [boxes.to(REMOTE)], 3)
            assert got.dtype == torch.bfloat16
            torch.testing.assert_close(got.cpu(), wanted.bfloat16(), rtol=0, atol=1e-6)
