"""Sessions whose devices are one index: what a user of placement="pool" may rely on."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
import transformers
from daemon import Daemon
from support import Client, at_once, wait_until
from test_nodes import Forwarder

D = "remote_accelerator:0"
ONE_THREAD = "host:0?threads=1"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    folder = tmp_path_factory.mktemp("nodes")
    first = Daemon(log=folder / "first.log", device=ONE_THREAD)
    second = Daemon(log=folder / "second.log", device=ONE_THREAD)
    with first as a, second as b:
        yield [a, b]
        assert a.running, a.log()
        assert b.running, b.log()


def connect(nodes: list[Daemon], policy: str | None = None) -> None:
    genie.connect([node.address for node in nodes], placement="pool", policy=policy)


@pytest.fixture(autouse=True)
def connected() -> Iterator[None]:
    yield
    genie.disconnect()


def small_node(make_daemon: Callable[..., Daemon], memory: str) -> Daemon:
    return make_daemon(device=f"{ONE_THREAD}&memory={memory}")


def test_a_pool_is_one_index(nodes: list[Daemon]) -> None:
    connect(nodes)
    assert torch.accelerator.device_count() == 1
    assert [device.node for device in genie.devices()] == [node.address for node in nodes]
    assert {device.index for device in genie.devices()} == {0}
    assert genie.stats()["policy"] == "locality"
    with pytest.raises(RuntimeError, match="remote_accelerator:1 does not exist"):
        torch.ones(1, device="remote_accelerator:1")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"placement": "everywhere"}, "pinned"),
        ({"placement": "pool", "policy": "best"}, "locality"),
        ({"placement": "pool", "policy": "random:x"}, "random:SEED"),
        ({"policy": "locality"}, "pool"),
    ],
)
def test_what_is_no_placement(nodes: list[Daemon], options: dict[str, str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        genie.connect([node.address for node in nodes], **options)
    assert not genie.is_connected()


def test_the_environment_says_it_too(nodes: list[Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIE_ADDRESS", ",".join(node.address for node in nodes))
    monkeypatch.setenv("GENIE_PLACEMENT", "pool")
    monkeypatch.setenv("GENIE_POLICY", "single")
    assert torch.ones(3, device=D).sum().item() == 3
    assert genie.stats()["policy"] == "single"
    assert len(genie.devices()) == 2


def test_where_a_value_is_and_who_has_a_copy(nodes: list[Daemon]) -> None:
    connect(nodes, "random:1")
    untouched = torch.empty(4, device=D)
    assert genie.where(untouched).device is None
    value = torch.ones(64).to(D)
    home = genie.where(value)
    assert "by lot" in home.why
    for _ in range(20):
        value + 1
    place = genie.where(value)
    assert place.device == home.device
    assert [device.node for device in place.replicas] == [
        node.address for node in nodes if node.address != place.device.node
    ]
    # One that writes ends the copies.
    value.add_(1)
    assert genie.where(value).replicas == ()
    assert value.cpu().tolist() == [2] * 64
    assert genie.where(value[3:5].t()).device == genie.where(value).device


def test_what_fits_on_one_device_stays_on_one(nodes: list[Daemon]) -> None:
    connect(nodes)
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4))).to(D)
    for _ in range(3):
        model(torch.randn(8, 64).to(D)).sum().backward()
    places = [genie.where(parameter) for parameter in model.parameters()]
    assert {place.device for place in places} == {genie.devices()[0]}
    assert all("came from the program" in place.why for place in places)
    assert genie.stats()["moves"] == 0


def test_frees_reach_every_node_that_holds_the_value(nodes: list[Daemon]) -> None:
    connect(nodes, "random:3")

    def held() -> list[int]:
        return [int(node.sessions()[0]["memory_bytes"]) for node in nodes]

    before = held()
    value = torch.ones(4 << 20, device=D)
    results = [(value * n)[:4].clone() for n in range(12)]
    genie.synchronize()
    assert genie.where(value).replicas
    # A node says what it holds ten times a second.
    wait_until(
        lambda: all(now >= then + (16 << 20) for now, then in zip(held(), before, strict=True)),
        5,
        "each node holds the value",
    )
    del value
    assert results[2].tolist() == [2] * 4

    def freed() -> bool:
        return all(a < b + (8 << 20) for a, b in zip(held(), before, strict=True))

    wait_until(freed, 5, "both nodes have their memory back")


def test_a_model_twice_a_nodes_memory(make_daemon: Callable[..., Daemon]) -> None:
    nodes = [small_node(make_daemon, "96MiB") for _ in range(2)]
    torch.manual_seed(4)
    layers = [torch.nn.Linear(1024, 1024) for _ in range(32)]
    model = torch.nn.Sequential(*layers)
    assert sum(p.nbytes for p in model.parameters()) > 96 << 20
    x = torch.randn(4, 1024)
    wanted = model(x)
    connect(nodes)
    model.to(D)
    for _ in range(3):
        got = model(x.to(D)).cpu()
    torch.testing.assert_close(got, wanted)
    used = {genie.where(layer.weight).device.node for layer in layers}
    assert used == {node.address for node in nodes}
    # Activations travel, and weights don't.
    assert genie.stats()["moved_bytes"] < 1 << 20


def test_without_memory_at_the_receiver_the_source_keeps_its_own(
    make_daemon: Callable[..., Daemon],
) -> None:
    nodes = [small_node(make_daemon, "400MiB"), small_node(make_daemon, "48MiB")]
    connect(nodes, "random:2")
    genie.synchronize()
    big = None
    while big is None or genie.where(big).device.node != nodes[0].address:
        big = torch.empty(16 << 20, device=D).fill_(2.0)
        try:
            genie.synchronize()
        except torch.OutOfMemoryError:
            big = None
    failed = 0
    for turn in range(12):
        try:
            # A read wants a copy where it runs, and a write wants all of it there.
            (big[:4] + 1).cpu() if turn % 2 else big.mul_(1.0)
            genie.synchronize()
        except torch.OutOfMemoryError:
            failed += 1
            assert genie.where(big).device.node == nodes[0].address
            assert genie.where(big).replicas == ()
    assert 0 < failed < 12
    assert big.sum().item() == 2 * (16 << 20)


def test_copies_that_are_only_read_make_room(make_daemon: Callable[..., Daemon]) -> None:
    """All values together have no room on one node, and each is read on both."""
    nodes = [small_node(make_daemon, "128MiB") for _ in range(2)]
    connect(nodes, "random:6")
    values = [torch.full((2 << 20,), float(n)).to(D) for n in range(20)]
    for turn in range(6):
        for n, value in enumerate(values):
            assert (value[:2] + turn).tolist() == [n + turn] * 2
    assert genie.stats()["moved_bytes"] > 256 << 20


def test_a_node_that_dies_takes_only_what_it_held(make_daemon: Callable[..., Daemon]) -> None:
    nodes = [make_daemon(device=ONE_THREAD) for _ in range(2)]
    connect(nodes, "random:5")
    values = [torch.full((4,), float(n)).to(D) for n in range(16)]
    genie.synchronize()
    at = [genie.where(value).device.node for value in values]
    assert len(set(at)) == 2
    nodes[1].kill()
    lost = kept = 0
    deadline = time.monotonic() + 2
    for n, value in enumerate(values):
        if at[n] == nodes[1].address:
            with pytest.raises(genie.NodeLostError, match=nodes[1].address):
                value.cpu()
            lost += 1
        else:
            assert value.cpu().tolist() == [n] * 4
            kept += 1
    assert lost
    assert kept
    assert time.monotonic() < deadline
    # What is new goes to the one that lives.
    fresh = [torch.ones(4, device=D) * n for n in range(8)]
    assert [value.sum().item() for value in fresh] == [4 * n for n in range(8)]


def test_nodes_that_cannot_reach_each_other(
    make_daemon: Callable[..., Daemon], recwarn: pytest.WarningsRecorder
) -> None:
    a, b = (make_daemon(device=ONE_THREAD) for _ in range(2))
    with Forwarder(b.port) as forwarder:
        genie.connect([a.address, forwarder.address], placement="pool", policy="random:9")
        torch.manual_seed(0)
        x = torch.randn(32, 32)
        y, z = x.clone(), x.to(D)
        for _ in range(20):
            y = (y @ x).tanh()
            z = (z @ x.to(D)).tanh()
            z.add_(1)
            y.add_(1)
        torch.testing.assert_close(z.cpu(), y)
        stats = genie.stats()
        assert 0 < stats["relayed_bytes"] <= stats["moved_bytes"]
        text = [
            str(one.message) for one in recwarn if "go through this process" in str(one.message)
        ]
        assert len(text) == 1
        genie.disconnect()


def test_threads_share_a_pool(nodes: list[Daemon]) -> None:
    connect(nodes, "random:8")
    shared = torch.arange(64.0).to(D)

    def work(number: int) -> None:
        own = torch.zeros(64, device=D)
        for _ in range(60):
            own += shared * number
            if number == 0:
                shared.mul_(1)
        assert own.cpu().tolist() == [60.0 * number * n for n in range(64)]

    at_once(work, range(4))


def test_a_failure_is_raised_once_with_its_line(nodes: list[Daemon]) -> None:
    connect(nodes, "random:4")
    x = torch.zeros(8, 3, device=D)
    kept = torch.ones(3, device=D)
    bad = x[torch.tensor([2, 99]).to(D)]  # the line
    later = bad * 2 + kept
    with pytest.raises(IndexError, match=r"test_pool.py.*line \d+"):
        later.cpu()
    assert (kept * 2).tolist() == [2, 2, 2]
    genie.synchronize()


# ---- decoding ------------------------------------------------------------------------------------

LOOP = """
import json, sys, time
import transformers
transformers.logging.set_verbosity_error()
addresses, policy, new_tokens = {addresses!r}, {policy!r}, {new_tokens}
genie.connect(addresses, placement="pool", policy=policy)
torch.manual_seed({seed})
config = transformers.GPT2Config(
    n_layer=4, n_embd=128, n_head=4, vocab_size=300, n_positions=512, bos_token_id=1,
    eos_token_id=299,
)
model = transformers.GPT2LMHeadModel(config).eval()
prompt = torch.randint(2, 298, (1, 200))
wanted = model.generate(prompt, max_new_tokens=new_tokens, do_sample=False)
model.to("remote_accelerator:0")
remote = prompt.to("remote_accelerator:0")
model.generate(remote, max_new_tokens=4, do_sample=False)
print("ready", flush=True)
sys.stdin.readline()
before = genie.stats()
got = model.generate(remote, max_new_tokens=new_tokens, do_sample=False).cpu()
after = genie.stats()
counted = {{key: after[key] - before[key] for key in ("moves", "moved_bytes", "placement_hits")}}
counted["same"] = torch.equal(wanted, got)
counted["home"] = genie.where(next(model.parameters())).device.node
print("done " + json.dumps(counted), flush=True)
"""


def decode(
    nodes: list[Daemon], make_client: Callable[..., Client], policy: str, clients: int
) -> list[dict[str, Any]]:
    """What each of some clients counted while all of them decoded at once."""
    addresses = [node.address for node in nodes]
    started = []
    for seed in range(clients):
        code = LOOP.format(addresses=addresses, policy=policy, new_tokens=60, seed=seed)
        started.append(make_client(code))
        # One after the other, so that the second finds the first.
        started[-1].expect("ready", 60)
    for client in started:
        client.tell("go")
    return [json.loads(client.expect("done", 60)) for client in started]


@pytest.mark.parametrize("clients", [1, 2])
def test_caches_stay_where_they_are_if_it_is_known_what_they_are(
    make_daemon: Callable[..., Daemon], make_client: Callable[..., Client], clients: int
) -> None:
    nodes = [make_daemon(device=ONE_THREAD) for _ in range(2)]
    blind = decode(nodes, make_client, "blind", clients)
    semantic = decode(nodes, make_client, "semantic", clients)
    assert all(one["same"] for one in blind + semantic)
    assert sum(one["moves"] for one in semantic) == 0, semantic
    assert sum(one["moves"] for one in blind) > 0, blind
    assert all(one["placement_hits"] > 40 for one in semantic), "plans were obeyed"
    assert all(one["placement_hits"] == 0 for one in blind), "and made for nobody else"
    # A session begins where least is done.
    assert len({one["home"] for one in semantic}) == clients


def test_a_plan_survives_the_node_that_made_it(make_daemon: Callable[..., Daemon]) -> None:
    """The next node plans; what the plan had on the dead one goes elsewhere."""
    nodes = [make_daemon(device=ONE_THREAD) for _ in range(2)]
    connect(nodes, "semantic")
    nodes[0].kill()
    config = transformers.GPT2Config(
        n_layer=2, n_embd=32, n_head=2, vocab_size=100, n_positions=128, bos_token_id=1,
        eos_token_id=99,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.randint(2, 98, (1, 8))
    wanted = model.generate(prompt, max_new_tokens=40, do_sample=False)
    wait_until(lambda: not genie.devices()[0].alive, 5, "it is known to be dead")
    model.to(D)
    got = model.generate(prompt.to(D), max_new_tokens=40, do_sample=False)
    assert torch.equal(got.cpu(), wanted)
    stats = genie.stats()
    assert stats["placement_plans"] > 0
    assert stats["states"] == 4
    assert genie.where(next(model.parameters())).device.node == nodes[1].address


def test_a_plan_whose_sizes_are_others_is_replaced(nodes: list[Daemon]) -> None:
    """What a plan was made for is told to the control plane, which asks for another."""
    connect(nodes, "semantic")
    cache = torch.zeros(1, 4, 64, device=D)
    row = torch.ones(1, 1, 64, device=D)
    tokens = 4
    deadline = time.monotonic() + 15
    while not genie.stats()["placements_replaced"]:
        assert time.monotonic() < deadline, genie.stats()
        cache = torch.cat([cache, row], dim=1)
        tokens += 1
        assert ((cache + 1).sum() * 2).item() == 2 * 64 * (tokens + tokens - 4)
    stats = genie.stats()
    assert stats["placements_observed"] > 0
    assert stats["placements_dropped"] == 0
    before = stats["placement_hits"]
    for _ in range(20):
        cache = torch.cat([cache, row], dim=1)
        ((cache + 1).sum() * 2).item()
    assert genie.stats()["placement_hits"] - before >= 18
    # The node knows as well.
    session = next(s for s in nodes[0].sessions() if s["planned_steps"])
    assert session["plans_again"] >= 1
    assert session["plans_dropped"] == 0
    held = [device["held_bytes"] for device in session["devices"]]
    assert len(held) == len(nodes)
    assert sum(held) >= 4 * 64 * 4


def test_a_plan_sends_what_is_taken_later(make_daemon: Callable[..., Daemon]) -> None:
    """A value of one node leaves when it is made, not when the other takes it."""
    nodes = [small_node(make_daemon, "200MiB") for _ in range(2)]
    connect(nodes, "semantic")
    torch.manual_seed(3)
    caches = [torch.randn(1, 32, 64) for _ in range(2)]
    weight, row = torch.randn(64, 64), torch.randn(1, 1, 64)

    def step(state: list[torch.Tensor], token: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        query = token @ w
        state[0] = torch.cat([state[0], query], dim=1)
        near = (state[0] * query).sum(dim=1, keepdim=True).tanh()
        near = near @ w
        near = near.relu() + query
        state[1] = torch.cat([state[1], near], dim=1)
        return (state[1] * query).sum(dim=1, keepdim=True).tanh()

    remote, w = [caches[0].to(D)], weight.to(D)
    # Leaves no room for the other up to 80% of the first node.
    filler = torch.ones(((160 << 20) - 28672) // 4).to(D)
    remote += [caches[1].to(D)]
    homes = [genie.where(cache).device.node for cache in remote]
    assert len(set(homes)) == 2, homes
    del filler
    token, ours = row.to(D), row
    for _ in range(400):
        if genie.stats()["placement_hits"] > 25:
            break
        token = step(remote, token, w)
        ours = step(caches, ours, weight)
        torch.testing.assert_close(token.cpu(), ours, rtol=0, atol=1e-4)
    stats = genie.stats()
    assert stats["placement_hits"] > 20, stats
    assert stats["planned_sends"] > 20, stats
    assert [genie.where(cache).device.node for cache in remote] == homes


def test_a_pool_of_one_node(nodes: list[Daemon], tmp_path: Path) -> None:
    connect(nodes[:1])
    model = torch.nn.Linear(8, 8).to(D)
    assert model(torch.ones(1, 8).to(D)).shape == (1, 8)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    model.load_state_dict(torch.load(tmp_path / "model.pt", map_location=D))


def test_optimisers_go_to_their_parameters(make_daemon: Callable[..., Daemon]) -> None:
    """A step over parameters of two nodes is one there and one here: none of them moves."""
    nodes = [small_node(make_daemon, "400MiB") for _ in range(2)]
    torch.manual_seed(4)
    local = torch.nn.Sequential(*(torch.nn.Linear(640, 640) for _ in range(20)))
    x = torch.randn(4, 640)
    connect(nodes)
    # Leaves room for some of the parameters on the first.
    filler = torch.ones(76 << 20).to(D)
    model = copy.deepcopy(local).to(D)
    del filler
    homes = [genie.where(parameter).device for parameter in model.parameters()]
    assert len({home.node for home in homes}) == 2
    remote = x.to(D)
    for name, options in (("SGD", {"momentum": 0.9}), ("AdamW", {"foreach": True})):
        ours = getattr(torch.optim, name)(model.parameters(), lr=1e-3, **options)
        theirs = getattr(torch.optim, name)(local.parameters(), lr=1e-3, **options)
        for _ in range(3):
            for optimizer, net, given in ((ours, model, remote), (theirs, local, x)):
                optimizer.zero_grad()
                net(given).square().mean().backward()
                optimizer.step()
            places = [genie.where(parameter) for parameter in model.parameters()]
            assert [place.device for place in places] == homes
            assert not any(place.replicas for place in places)
    for one, other in zip(model.parameters(), local.parameters(), strict=True):
        torch.testing.assert_close(one.detach().cpu(), other.detach())


def test_gradients_are_made_where_their_parameters_are(
    make_daemon: Callable[..., Daemon],
) -> None:
    """Only activations move, and plans of whole steps are obeyed."""
    nodes = [small_node(make_daemon, "400MiB") for _ in range(2)]
    moved = {}
    results = []
    for policy in ("locality", "semantic"):
        connect(nodes, policy)
        torch.manual_seed(4)
        layers = [torch.nn.Linear(640, 640) for _ in range(20)]
        filler = torch.ones(76 << 20).to(D)
        model = torch.nn.Sequential(*layers).to(D)
        del filler
        assert len({genie.where(one.weight).device.node for one in layers}) == 2
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        x = torch.randn(4, 640).to(D)
        for step in range(8):
            if step == 6:
                before = genie.stats()["moved_bytes"]
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            results.append(loss.item())
        moved[policy] = genie.stats()["moved_bytes"] - before
        hits = genie.stats()["placement_hits"]
        assert (hits > 2) == (policy == "semantic")
        genie.disconnect()
    assert results[:8] == results[8:]
    assert moved["semantic"] <= moved["locality"] < 1 << 20, moved


# ---- a file that names the nodes ----------------------------------------------------------------


def test_a_file_names_the_nodes(
    nodes: list[Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.toml"
    tables = "".join(f'[[node]]\naddress = "{node.address}"\n' for node in nodes)
    file.write_text(f'placement = "pool"\npolicy = "single"\n{tables}')
    genie.connect(config=file)
    assert [device.node for device in genie.devices()] == [node.address for node in nodes]
    assert genie.stats()["policy"] == "single"
    genie.disconnect()
    # What is passed counts more, and the environment names one, too.
    genie.connect(nodes[1].address, config=str(file), policy="locality")
    assert [device.node for device in genie.devices()] == [nodes[1].address]
    assert genie.stats()["policy"] == "locality"
    genie.disconnect()
    monkeypatch.delenv("GENIE_ADDRESS", raising=False)
    monkeypatch.setenv("GENIE_CONFIG", str(file))
    assert torch.ones(3, device=D).sum().item() == 3
    assert len(genie.devices()) == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "names no node"),
        ("[[node]]\n", "address"),
        ('[[node]]\naddress = "tcp://a:1"\ncolour = "red"\n', "colour"),
        ('[[node]]\naddress = "a:1:2"\n', "a:1:2"),
        ('placement = "everywhere"\n[[node]]\naddress = "tcp://127.0.0.1:1"\n', "pinned"),
        ("node = [", "line 1"),
    ],
)
def test_a_file_that_says_nothing_right(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises((ValueError, genie.ConnectError), match=what):
        genie.connect(config=file)
    with pytest.raises(ValueError, match=r"nowhere\.toml"):
        genie.connect(config=tmp_path / "nowhere.toml")
