"""Uses every public name of Genie with its types written down: checked by mypy, and run."""

# mypy: disallow-untyped-calls

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import genie
import torch
from genie import remote_accelerator as device_module
from typing_extensions import assert_type


def use_a_session(address: str) -> None:
    """Opens one and closes it."""
    assert_type(genie.__version__, str)
    assert_type(genie.TORCH_VERSION, str)
    assert_type(
        genie.connect(
            [address],
            ca=None,
            cert=None,
            key=None,
            timeout=5.0,
            placement="pinned",
            policy=None,
            config=None,
        ),
        None,
    )
    assert_type(genie.is_connected(), bool)
    assert_type(genie.synchronize(), None)
    assert_type(genie.stats(), dict[str, Any])
    devices = genie.devices()
    assert_type(devices, list[genie.Device])
    use_a_device(devices[0])
    use_a_place(genie.where(torch.ones(2, device="remote_accelerator:0")))
    use_intent()
    use_replay()
    use_the_device_module()
    assert_type(genie.disconnect(), None)


def use_a_device(device: genie.Device) -> None:
    """Its fields."""
    assert_type(device.index, int)
    assert_type(device.node, str)
    assert_type(device.name, str)
    assert_type(device.description, str)
    assert_type(device.memory_bytes, int)
    assert_type(device.memory_limit_bytes, int)
    assert_type(device.speed, float)
    assert_type(device.link, str)
    assert_type(device.alive, bool)


def use_a_place(place: genie.Place) -> None:
    """Its fields."""
    assert_type(place.device, genie.Device | None)
    assert_type(place.why, str)
    assert_type(place.replicas, tuple[genie.Device, ...])


def use_intent() -> None:
    """What tensors are for."""
    with genie.annotate(phase="decode", role="mine", modality="text", other="more"):
        tensor = torch.ones(2, device="remote_accelerator:0")
    known = genie.inspect(tensor)
    assert_type(known, genie.Inspection)
    assert_type(known.state, str)
    assert_type(known.annotations, dict[str, genie.Annotation])
    assert_type(known.annotations["phase"].value, str)
    assert_type(genie.materialize([tensor]), list[torch.Tensor])
    with genie.module_paths(torch.nn.Linear(2, 2)):
        pass
    assert_type(genie.hook_overhead(100), float)
    assert_type(genie.explain(torch.nn.Linear(2, 2), torch.ones(2), format="json"), str)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.json"
        genie.export_srg(torch.nn.Linear(2, 2), torch.ones(2), path=path)
    with genie.profile() as profile:
        tensor.sum().item()
    assert_type(profile, genie.Profile)
    assert_type(profile.records, list[genie.ProfiledRecord])
    assert_type(profile.records[0].ran, float)
    assert_type(profile.waits, list[genie.ProfiledWait])
    assert_type(profile.waits[0].parts(), dict[str, float])
    assert_type(profile.calls, list[genie.ModuleCall])
    assert_type(profile.summary(), dict[str, float])
    assert_type(profile.table(by="module", limit=3), str)
    with genie.register_trigger("aten::mm") as trigger:
        assert_type(trigger, genie.Trigger)
        assert_type(trigger.operators, tuple[str, ...])
    genie.register_trigger(torch.ops.aten.add.Tensor).remove()
    with genie.capture(lambda operator: {"seen": operator.name}) as captured:
        tensor + 1
    assert_type(captured, genie.Capture)
    assert_type(captured.operators, list[genie.CapturedOperator])
    assert_type(captured.operators[0].inputs, tuple[genie.CapturedTensor, ...])
    assert_type(captured.values(), dict[int, int])
    assert_type(captured.json(), str)
    assert_type(genie.library_operators(), list[str])
    doubled = genie.register_operator(
        "typed::double(Tensor x) -> Tensor", shape=lambda x: torch.empty_like(x)
    )
    assert_type(doubled, torch._ops.OpOverload)


def use_replay() -> None:
    """A module and a function, with their own types."""
    fast = genie.replay(torch.nn.Linear(2, 2).to("remote_accelerator:0"), dynamic=True)
    fast(torch.ones(2, 2, device="remote_accelerator:0"))
    report = fast.report()
    assert_type(report, genie.ReplayReport)
    assert_type(report.python, dict[str, int])
    assert_type(report.graph_seconds, float)

    def double(x: torch.Tensor, by: int = 2) -> torch.Tensor:
        return x * by

    doubled: genie.Replay[..., torch.Tensor] = genie.replay(double, fullgraph=True)
    assert_type(doubled(torch.ones(2, device="remote_accelerator:0")), torch.Tensor)


def use_errors() -> None:
    """Each is a class that can be told apart."""
    classes: list[type[genie.GenieError]] = [
        genie.ConnectError,
        genie.ForkError,
        genie.NodeLostError,
        genie.NotConnectedError,
        genie.ProcessGroupError,
        genie.RemoteOperatorError,
        genie.StaleTensorError,
        genie.VersionMismatchError,
    ]
    for one in classes:
        assert_type(one.page, str)
        assert_type(genie.explain_error(one("why")), str)
    lost: ConnectionError = genie.NodeLostError("why")
    failed: RuntimeError = genie.RemoteOperatorError("why")
    assert isinstance(lost, ConnectionError)
    assert isinstance(failed, RuntimeError)


def use_the_device_module() -> None:
    """``torch.remote_accelerator``, by its typed name."""
    assert_type(device_module.init(), None)
    assert_type(device_module.is_initialized(), bool)
    assert_type(device_module.is_available(), bool)
    assert_type(device_module.device_count(), int)
    assert_type(device_module.current_device(), int)
    assert_type(device_module.set_device("remote_accelerator:0"), None)
    assert_type(device_module.synchronize(torch.device("remote_accelerator", 0)), None)
    assert_type(device_module.empty_cache(), None)
    assert_type(device_module.get_device_name(0), str)
    properties = device_module.get_device_properties(0)
    assert_type(properties, device_module.DeviceProperties)
    assert_type(properties.total_memory, int)
    assert_type(device_module.can_device_access_peer(0, 0), bool)
    assert_type(device_module.is_bf16_supported(), bool)
    assert_type(device_module.is_tf32_supported(), bool)
    assert_type(device_module.get_amp_supported_dtype(), list[torch.dtype])
    with device_module.device(0), device_module.device_of(torch.ones(1)):
        use_random_numbers()
    use_memory()
    use_streams()
    errors: list[type[RuntimeError]] = [
        device_module.OutOfMemoryError,
        device_module.AcceleratorError,
    ]
    assert all(issubclass(error, RuntimeError) for error in errors)


def use_random_numbers() -> None:
    """Generators."""
    assert_type(device_module.manual_seed(1), None)
    assert_type(device_module.manual_seed_all(1), None)
    assert_type(device_module.seed(), None)
    assert_type(device_module.seed_all(), None)
    assert_type(device_module.initial_seed(), int)
    assert_type(device_module.get_rng_state(), torch.Tensor)
    assert_type(device_module.get_rng_state_all(), list[torch.Tensor])
    assert_type(device_module.set_rng_state(device_module.get_rng_state()), None)
    assert_type(device_module.set_rng_state_all(device_module.get_rng_state_all()), None)


def use_memory() -> None:
    """Counts of bytes."""
    assert_type(device_module.memory_stats(), dict[str, Any])
    assert_type(device_module.memory_allocated(), int)
    assert_type(device_module.max_memory_allocated(), int)
    assert_type(device_module.memory_reserved(), int)
    assert_type(device_module.max_memory_reserved(), int)
    assert_type(device_module.device_memory_used(), int)
    assert_type(device_module.mem_get_info(), tuple[int, int])
    assert_type(device_module.memory_summary(), str)
    assert_type(device_module.reset_peak_memory_stats(), None)
    assert_type(device_module.reset_max_memory_allocated(), None)
    assert_type(device_module.reset_accumulated_memory_stats(), None)


def use_streams() -> None:
    """Streams and events."""
    stream = device_module.current_stream()
    assert_type(stream, torch.Stream)
    assert_type(device_module.default_stream(), torch.Stream)
    assert_type(device_module.set_stream(stream), None)
    assert_type(device_module.is_current_stream_capturing(), bool)
    made: list[torch.Stream] = [device_module.Stream()]
    event: torch.Event = device_module.Event(enable_timing=True)
    with device_module.stream(made[0]):
        event.record()
    event.synchronize()
