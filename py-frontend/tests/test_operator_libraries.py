"""Operators outside of ATen: a library's own, which a node has loaded."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from daemon import BINARY, ControlPlane, Daemon
from support import REMOTE, Client, Counted, assert_same, check, to_remote

SOURCE = Path(__file__).parent / "operator_library.cpp"
# Of torch.utils.cpp_extension, which links all to libtorch_python.
LIBRARIES = ("-ltorch_cpu", "-lc10", "-Wl,--no-as-needed", "-ltorch_python")


def build(source: Path, into: Path, *flags: str) -> Path:
    """A shared object, as PyTorch's own means build one."""
    torch_dir = Path(torch.__file__).parent
    compiler = os.environ.get("CXX", "c++").split()
    include = [torch_dir / "include", torch_dir / "include/torch/csrc/api/include"]
    subprocess.run(
        [
            *(*compiler, "-shared", "-fPIC", "-O1", "-std=c++17", "-w"),
            *(f"-I{folder}" for folder in include),
            *(str(source), "-o", str(into), f"-L{torch_dir / 'lib'}", *LIBRARIES, *flags),
        ],
        check=True,
        timeout=300,
    )
    return into


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SOURCE, tmp_path_factory.mktemp("library") / "operators.so")


@pytest.fixture(scope="module")
def torchvisions() -> Path:
    torchvision = pytest.importorskip("torchvision")
    return Path(torchvision.__file__).parent / "_C.so"


@pytest.fixture(scope="module")
def node(
    library: Path, torchvisions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    both = ("--operator-library", str(library), "--operator-library", str(torchvisions))
    log = tmp_path_factory.mktemp("node") / "genie-dataplane.log"
    with Daemon(*both, log=log) as running:
        yield running
        assert running.running, running.log()


@pytest.fixture
def session(node: Daemon, library: Path) -> Iterator[Daemon]:
    torch.ops.load_library(library)
    genie.connect(node.address)
    yield node
    genie.disconnect()


def ours() -> Any:
    return torch.ops.genie_test


def fallbacks() -> int:
    return int(genie.stats()["fallback_operators"])


@pytest.mark.usefixtures("session")
def test_what_a_node_has() -> None:
    names = {schema.partition("(")[0] for schema in genie.library_operators()}
    assert {"genie_test::scale", "genie_test::weigh", "torchvision::nms"} <= names
    # Of one that gives a view no record can be made.
    assert "genie_test::first" not in names
    assert genie.library_operators(0) == genie.library_operators()
    with pytest.raises(ValueError, match="no remote_accelerator:1"):
        genie.library_operators(1)


@pytest.mark.usefixtures("session")
def test_operators_run_on_the_node() -> None:
    before = fallbacks()
    x, y = torch.randn(6, 3), torch.randn(6, 3)
    check(lambda x: ours().scale(x, 2.5), x)
    check(lambda x, keep: ours().rows(x, keep), x, torch.arange(6) % 2 == 0)
    check(lambda x, y: ours().add_into_(x, y) + x, x, y)
    check(lambda x: ours().halves(x), x)
    check(lambda x: ours().cumsum(x, 7), x)
    check(lambda x, y: ours().weigh([x, y], None), x, y)
    check(lambda x, y: ours().weigh([x, y], y), x, y)
    assert ours().positives(to_remote(x)) == ours().positives(x)
    assert fallbacks() == before


@pytest.mark.usefixtures("session")
def test_a_call_costs_what_its_shapes_cost() -> None:
    x, keep = to_remote(torch.randn(6, 3)), to_remote(torch.arange(6) > 2)
    with Counted() as known:
        ours().weigh([x, x], None)
        ours().add_into_(x, x)
    assert known.round_trips == 0
    with Counted() as unknown:
        for _ in range(3):
            ours().rows(x, keep)
    assert unknown.round_trips == 3


@pytest.mark.usefixtures("session")
def test_what_a_kernel_says() -> None:
    with pytest.raises(ValueError, match="refuse wants more than 100 elements"):
        ours().refuse(to_remote(torch.ones(2)))
    with pytest.raises(RuntimeError, match="weigh wants parts"):
        ours().weigh([], to_remote(torch.ones(2)))
    assert_same(ours().refuse(to_remote(torch.ones(101))), torch.ones(101))


@pytest.mark.usefixtures("session")
def test_gradients_compiled_and_replayed() -> None:
    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.by = inputs[1]

    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return ours().scale(grad, ctx.by), None

    genie.register_operator("genie_test::scale", shape=lambda x, by: torch.empty_like(x))
    torch.library.register_autograd("genie_test::scale", backward, setup_context=setup)
    x = torch.randn(4, 3)

    def run(x: torch.Tensor) -> torch.Tensor:
        return ours().scale(x.tanh(), 3.0).relu() + x

    for make in (
        lambda: run,
        lambda: torch.compile(run, backend="genie"),
        lambda: torch.compile(run, backend="aot_eager"),
        lambda: genie.replay(run),
    ):
        here, there = x.clone().requires_grad_(), to_remote(x).requires_grad_()
        run(here).square().sum().backward()
        make()(there).square().sum().backward()
        assert_same(there.grad, here.grad)
    torch.compiler.reset()
    there = to_remote(x)
    with Counted() as counted:
        ours().scale(there, 2.0)
    assert counted.round_trips == 0


@pytest.mark.usefixtures("session")
def test_a_rule_that_is_wrong() -> None:
    genie.register_operator("genie_test::cumsum", shape=lambda x, reduction: torch.empty_like(x.T))
    x = to_remote(torch.randn(4, 3))
    with pytest.raises(
        RuntimeError, match=r"gave Float \[4, 3\], but Float \[3, 4\] was predicted"
    ):
        ours().cumsum(x, 1).cpu()
    genie.register_operator("genie_test::cumsum", shape=lambda x, reduction: torch.empty_like(x))


def test_a_program_without_the_library(node: Daemon, make_client: Callable[..., Client]) -> None:
    client = make_client(
        """
        rows = genie.register_operator("genie_test::rows")
        scale = genie.register_operator(
            "genie_test::scale", shape=lambda x, by: torch.empty_like(x)
        )
        x = torch.arange(6.0).reshape(3, 2).to("remote_accelerator:0")
        before = genie.stats()["round_trips"]
        y = scale(x, 2.0)
        assert genie.stats()["round_trips"] == before
        print(y.tolist())
        print(rows(x, x[:, 0] > 1).tolist())
        try:
            scale(torch.ones(2), 2.0)
        except NotImplementedError as error:
            print("here:", error)
        def refused(operator):
            try:
                genie.register_operator(operator)
            except ValueError as error:
                print("refused:", error)
        refused("genie_test::nothing")
        refused("scale")
        refused("genie_test::scale(Tensor x) -> Tensor")
        refused("a::b(Tensr x")
        genie.disconnect()
        refused("genie_test::halves")
        """,
        address=node.address,
    )
    client.expect("[[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]")
    client.expect("[[2.0, 3.0], [4.0, 5.0]]")
    client.expect("here: Could not run 'genie_test::scale'")
    for said in (
        "this process knows no operator genie_test::nothing, and there is none in the node's",
        "'scale' is no operator",
        "genie_test::scale is known here with another schema",
        "'a::b(Tensr x' is no schema",
        "this process knows no operator genie_test::halves, and there is no node",
    ):
        client.expect(f"refused: {said}")
    client.finish()


def test_without_the_library_it_runs_here(
    make_daemon: Callable[..., Daemon], library: Path, torchvisions: Path
) -> None:
    torch.ops.load_library(library)
    bare = make_daemon()
    genie.connect(bare.address)
    before = fallbacks()
    x, keep = torch.randn(6, 3), torch.arange(6) > 2
    there = to_remote((x, keep))
    genie.synchronize()
    with warnings.catch_warnings(record=True) as caught, Counted() as counted:
        warnings.simplefilter("always")
        assert_same(ours().rows(*there), ours().rows(x, keep))
        assert_same(ours().rows(*there), ours().rows(x, keep))
    said = [str(one.message) for one in caught if "genie_test::rows" in str(one.message)]
    assert len(said) == 1
    assert "--operator-library" in said[0]
    # What it takes comes in one, and what the assertions look at in one each.
    assert counted.round_trips == 4
    assert fallbacks() == before + 2


def test_what_nobody_has(make_daemon: Callable[..., Daemon]) -> None:
    genie.connect(make_daemon().address)
    nowhere = genie.register_operator("genie_nowhere::op(Tensor x) -> Tensor")
    with pytest.raises(NotImplementedError, match="--operator-library"):
        nowhere(torch.ones(2, device=REMOTE))


def test_another_schema(node: Daemon, make_client: Callable[..., Client]) -> None:
    client = make_client(
        """
        import warnings
        library = torch.library.Library("genie_test", "DEF")
        library.define("scale(Tensor x, float by, int more=1) -> Tensor")
        library.impl("scale", lambda x, by, more=1: x * by * more, "CPU")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = torch.ones(2, device="remote_accelerator:0")
            print(torch.ops.genie_test.scale(x, 3.0, 2).tolist())
        print(sum("another schema" in str(one.message) for one in caught))
        """,
        address=node.address,
    )
    client.expect("[6.0, 6.0]")
    client.expect("1")
    client.finish()


def test_a_kernel_that_dies(make_daemon: Callable[..., Daemon], library: Path) -> None:
    torch.ops.load_library(library)
    node = make_daemon("--operator-library", str(library))
    genie.connect(node.address)
    with pytest.raises(genie.NodeLostError, match="an abort"):
        ours().die(torch.ones(2, device=REMOTE)).cpu()
    genie.connect(node.address)
    assert ours().positives(torch.ones(2, device=REMOTE)) == 2


def test_through_a_control_plane(
    node: Daemon, make_daemon: Callable[..., Daemon], library: Path, tmp_path: Path
) -> None:
    torch.ops.load_library(library)
    bare = make_daemon()
    x = torch.randn(4)
    with ControlPlane([node, bare], log=tmp_path / "plane.log") as plane:
        genie.connect(plane.address)
        assert any("genie_test::scale" in schema for schema in genie.library_operators(0))
        assert genie.library_operators(1) == []
        before = fallbacks()
        assert_same(ours().scale(x.to("remote_accelerator:0"), 2.0), x * 2)
        assert fallbacks() == before
        assert_same(ours().scale(x.to("remote_accelerator:1"), 2.0), x * 2)
        assert fallbacks() == before + 1
        genie.disconnect()


@pytest.mark.parametrize("policy", ["locality", "random:3", "random:4", "semantic"])
def test_in_a_pool_they_run_where_they_are(
    node: Daemon, make_daemon: Callable[..., Daemon], library: Path, policy: str
) -> None:
    torch.ops.load_library(library)
    bare = [make_daemon(), make_daemon()]
    addresses = [bare[0].address, node.address, bare[1].address]
    genie.connect(addresses, placement="pool", policy=policy)
    assert any("genie_test::scale" in schema for schema in genie.library_operators())
    before = fallbacks()
    weight = torch.randn(8, 8)
    there = weight.to(REMOTE)
    for number in range(12):
        x = torch.randn(8, 8)
        y = ours().scale(x.to(REMOTE) @ there, 2.0 + number).relu()
        found = ours().weigh([y, there @ y], None)
        z = (x @ weight * (2.0 + number)).relu()
        assert_same(found, ours().weigh([z, weight @ z], None), 1e-3)
        assert ours().positives(y) == ours().positives(z)
    assert fallbacks() == before
    for one in range(2):
        assert genie.where(ours().scale(there * one, 2.0)).device.node == node.address


def test_in_a_pool_without_the_node_that_had_it(
    make_daemon: Callable[..., Daemon], library: Path
) -> None:
    torch.ops.load_library(library)
    had = make_daemon("--operator-library", str(library))
    nodes = [make_daemon(), had]
    genie.connect([one.address for one in nodes], placement="pool", policy="locality")
    x = torch.randn(4)
    before = fallbacks()
    assert_same(ours().scale(x.to(REMOTE), 2.0), x * 2)
    assert fallbacks() == before
    had.kill()
    for _ in range(100):
        try:
            assert_same(ours().scale(x.to(REMOTE), 2.0), x * 2)
            if fallbacks() > before:
                break
        except genie.NodeLostError:
            pass
    assert fallbacks() > before


@pytest.mark.usefixtures("session")
def test_loops_go_by_plans() -> None:
    x = to_remote(torch.randn(8, 8))
    before = genie.stats()
    for _ in range(20):
        y = ours().weigh([x @ x, x, x.relu()], None)
        y.sum().item()
    after = genie.stats()
    assert after["plan_hits"] - before["plan_hits"] >= 10


def test_detection_runs_on_the_node(session: Daemon) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    build_model = torchvision.models.detection.maskrcnn_resnet50_fpn
    model = build_model(
        weights=None, weights_backbone=None, min_size=128, max_size=128, box_score_thresh=0.0
    ).eval()
    image = torch.rand(3, 120, 128)
    with torch.inference_mode():
        local = model([image])[0]
        model.to(REMOTE)
        there = image.to(REMOTE)
        genie.synchronize()
        before = fallbacks()
        with Counted() as counted:
            remote = {name: tensor.cpu() for name, tensor in model([there])[0].items()}
    assert fallbacks() == before
    # Nothing but the image's results and the sizes that depend on them.
    results = sum(tensor.nbytes for tensor in remote.values())
    assert counted.bytes_received < results + 200_000
    assert counted.bytes_sent < 400_000
    for name, tensor in local.items():
        torch.testing.assert_close(remote[name], tensor, rtol=1e-3, atol=1e-2)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("name", ["roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"])
def test_regions_of_torchvision(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    operator = getattr(torchvision.ops, name)
    regions = torch.tensor([[0.0, 1, 1, 20, 20], [1, 4, 4, 30, 30]])

    def run(x: torch.Tensor, regions: torch.Tensor) -> Any:
        x = x.requires_grad_()
        y = operator(x, regions, 2, 0.5)
        y.square().sum().backward()
        return y.detach(), x.grad

    check(run, torch.randn(2, 8, 32, 32), regions)
    bad = regions.clone()
    bad[1, 0] = 2
    with pytest.raises(ValueError, match="its kernel needs `column rois 0 0"):
        operator(torch.randn(2, 8, 32, 32, device=REMOTE), bad.to(REMOTE), 2, 0.5).cpu()


@pytest.mark.usefixtures("session")
def test_convolutions_that_bend() -> None:
    torchvision = pytest.importorskip("torchvision")

    def run(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> Any:
        leaves = [tensor.requires_grad_() for tensor in (x, offset, weight)]
        y = torchvision.ops.deform_conv2d(x, offset, weight)
        y.sum().backward()
        return y.detach(), [leaf.grad for leaf in leaves]

    before = fallbacks()
    check(run, torch.randn(2, 3, 8, 8), torch.randn(2, 18, 6, 6), torch.randn(4, 3, 3, 3))
    assert fallbacks() == before


# ---- what can't be loaded ends the start, and says why ------------------------------------------


def start(*libraries: Path) -> str:
    """Starts a node that is not to start; gives what it says."""
    arguments = [text for path in libraries for text in ("--operator-library", str(path))]
    ended = subprocess.run(
        [str(BINARY), "--listen", "127.0.0.1:0", "--transport", "tcp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    return ended.stderr


def test_what_is_no_library(tmp_path: Path, library: Path) -> None:
    assert "can't be read" in start(tmp_path / "nothing.so")
    assert "is no file" in start(tmp_path)
    text = tmp_path / "text.so"
    text.write_text("not a library")
    assert "text.so can't be loaded" in start(text)
    open_to_all = Path(shutil.copy(library, tmp_path / "open.so"))
    open_to_all.chmod(open_to_all.stat().st_mode | stat.S_IWOTH)
    assert "may be written by anybody" in start(open_to_all)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int nothing() { return 1; }", "it defines no operators"),
        ('extern "C" void PyErr_Clear(); void f() { PyErr_Clear(); }', "It calls Python"),
        (
            "namespace c10 { void of_another_release(); } void f() { c10::of_another_release(); }",
            "built for another libtorch",
        ),
        (
            "#include <torch/library.h>\n"
            'TORCH_LIBRARY_FRAGMENT(aten, m) { m.def("my_own(Tensor x) -> Tensor"); }',
            "in a namespace of libtorch's own",
        ),
        (
            "#include <thread>\n#include <torch/library.h>\n"
            'TORCH_LIBRARY(threaded, m) { m.def("f(Tensor x) -> Tensor");\n'
            "  std::thread([] { for (;;) std::this_thread::sleep_for(std::chrono::hours(1)); })"
            ".detach(); }",
            "starts threads when it is loaded",
        ),
    ],
)
def test_libraries_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    source = tmp_path / "refused.cpp"
    source.write_text(text)
    built = build(source, tmp_path / "refused.so", "-Wl,--unresolved-symbols=ignore-all")
    assert said in start(built)


def test_two_of_one_name(tmp_path: Path, library: Path) -> None:
    other = Path(shutil.copy(library, tmp_path / "again.so"))
    said = start(library, other)
    assert "again.so can't be loaded: it ended by an abort meanwhile" in said
    assert "Only a single TORCH_LIBRARY" in said


def test_status_lists_them(node: Daemon) -> None:
    shown = subprocess.run(
        [str(BINARY), "status", node.address.removeprefix("tcp://")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    assert "operators.so, 9 operators" in shown
    assert "_C.so, 12 operators" in shown
