"""What programs are taken for: phases, kinds of input, roles, and what becomes of values."""

from __future__ import annotations

import copy
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
import transformers
from support import REMOTE
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree
from zoo.models import MODELS

pytestmark = pytest.mark.usefixtures("session")

Told = dict[str, Any]


def told(run: Callable[..., Any], *inputs: Any) -> Told:
    found: Told = json.loads(genie.explain(run, *inputs, format="json"))
    return found


def there(value: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.to(REMOTE) if torch.is_tensor(leaf) else leaf, value)


def of_zoo(name: str) -> tuple[Any, dict[str, Any]]:
    """A model of the zoo on the node, and its inputs."""
    torch.manual_seed(0)
    return MODELS[name].build().eval().to(REMOTE), there(MODELS[name].inputs())


def forward(name: str) -> Told:
    model, inputs = of_zoo(name)
    with torch.no_grad():
        return told(lambda: model(**inputs))


def generated(name: str, **options: Any) -> Told:
    model, inputs = of_zoo(name)
    inputs.pop("labels", None)
    options = {"max_new_tokens": 4, "do_sample": False, **options}
    return told(lambda: model.generate(**inputs, **options))


def kind(of: Told) -> str:
    assert of["workload"]["confidence"] >= 0.7, of["workload"]
    found: str = of["workload"]["class"]
    return found


def having(of: Told, **wanted: str) -> list[dict[str, Any]]:
    return [one for one in of["operators"] if all(one[key] == wanted[key] for key in wanted)]


def counts(of: Told, what: str) -> Counter[str]:
    return Counter(one[what] for one in of["operators"])


#: What a model's layers are made of, and not what is around them.
BODY = ("attention.", "feed_forward.", "norm", "residual", "logits")


def passes(of: Told) -> list[set[str]]:
    """The phases of a language model's layers, from one lookup of tokens to the next."""
    found: list[set[str]] = []
    for one in of["operators"]:
        if one["role"] == "embedding.token":
            found.append(set())
        elif one["role"].startswith(BODY) and one["role"] != "attention.mask" and found:
            found[-1].add(one["phase"])
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cache_implementation": "static"},
        {"num_beams": 2},
        {"use_cache": True, "do_sample": True},
    ],
    ids=["dynamic cache", "static cache", "beams", "sampling"],
)
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen2", "gemma", "mixtral-eager"])
def test_the_first_step_is_prefill_and_all_others_decode(
    name: str, options: dict[str, Any]
) -> None:
    of = generated(name, **options)
    assert kind(of) == "llm"
    assert passes(of) == [{"prefill"}, {"decode"}, {"decode"}, {"decode"}]
    assert set(counts(of, "phase")) <= {
        "prefill", "decode", "embedding", "sampling", "forward", "initialization",
    }  # fmt: skip


def llama(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=120,
        bos_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
        **options,
    )
    return transformers.LlamaForCausalLM(config).eval().to(REMOTE)


def tokens(count: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(2, 119, (rows, count)).to(REMOTE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_that_is_written_out_is_attention(attention: str) -> None:
    model = llama(attn_implementation=attention)
    with torch.no_grad():
        of = told(model, tokens(9))
    assert kind(of) == "llm"
    roles = counts(of, "role")
    for role in ("query", "key", "value", "context", "output"):
        assert roles[f"attention.{role}"] == 2, roles
    for role in ("gate", "up", "down"):
        assert roles[f"feed_forward.{role}"] == 2, roles
    assert roles["logits"] == 1
    assert roles["residual"] == 4
    assert passes(of) == [{"prefill"}]


def test_roles_are_those_that_the_modules_are_called_by() -> None:
    """Names only confirm: here they are the judge."""
    of = generated("llama")
    by_name = {
        "q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
        "o_proj": "attention.output", "gate_proj": "feed_forward.gate",
        "up_proj": "feed_forward.up", "down_proj": "feed_forward.down", "lm_head": "logits",
    }  # fmt: skip
    found = 0
    for one in of["operators"]:
        name = one["module"].rpartition(".")[2]
        if name in by_name and one["op"] in ("aten::mm", "aten::addmm", "aten::linear"):
            assert one["role"] == by_name[name], one
            found += 1
    assert found == 4 * (2 * 7 + 1)


def test_a_speculated_chunk_is_decoded_and_a_prefix_that_goes_on_is_prefilled() -> None:
    model = llama()
    with torch.no_grad():
        cache = model(tokens(40), use_cache=True).past_key_values
        guess = told(lambda: model(tokens(5), past_key_values=copy.deepcopy(cache)))
        more = told(lambda: model(tokens(30), past_key_values=copy.deepcopy(cache)))
        one = told(lambda: model(tokens(1), past_key_values=copy.deepcopy(cache)))
    assert passes(guess) == passes(one) == [{"decode"}]
    assert passes(more) == [{"prefill"}]


def test_speculative_decoding_decodes() -> None:
    model = llama()
    text = tokens(6).repeat(1, 5)
    of = told(
        lambda: model.generate(text, max_new_tokens=6, do_sample=False, prompt_lookup_num_tokens=3)
    )
    first, *rest = passes(of)
    assert first == {"prefill"}
    assert rest
    assert all(phases == {"decode"} for phases in rest)


def test_padding_changes_nothing() -> None:
    model = llama()
    text = tokens(9, rows=2)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    mask = mask.to(REMOTE)
    of = told(lambda: model.generate(text, attention_mask=mask, max_new_tokens=3, do_sample=False))
    assert kind(of) == "llm"
    assert passes(of) == [{"prefill"}, {"decode"}, {"decode"}]


def test_caches_are_caches_and_nothing_else_is() -> None:
    of = generated("llama")
    caches = having(of, residency="kv_cache")
    assert len(caches) == 4 * 2 * 2
    assert {one["role"] for one in caches} == {"attention.cache_update"}
    vision = forward("vit")
    assert not having(vision, residency="kv_cache")


def test_an_expert_is_no_new_request() -> None:
    of = generated("mixtral-eager")
    assert len(passes(of)) == 4
    assert counts(of, "role")["experts.router"] == 4 * 2


@pytest.mark.parametrize("name", ["mamba", "mamba2", "rwkv"])
def test_a_recurrence_over_tokens_is_language(name: str) -> None:
    of = generated(name)
    assert kind(of) == "llm"
    assert passes(of) == [{"prefill"}, {"decode"}, {"decode"}, {"decode"}]
    assert set(counts(of, "modality")) <= {"text", "unknown"}


def test_sound_is_encoded_and_text_decoded() -> None:
    of = generated("whisper")
    assert kind(of) == "audio"
    encoder = [one for one in of["operators"] if one["module"].startswith("WhisperEncoder")]
    # Keys and values of the sound are made of it once, in the decoder's layers.
    decoder = [
        one
        for one in of["operators"]
        if ".decoder.layers" in one["module"] and one["modality"] != "audio"
    ]
    assert {one["phase"] for one in encoder} == {"encode"}
    assert {one["modality"] for one in encoder} == {"audio"}
    assert {one["phase"] for one in decoder} == {"prefill", "decode"}


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_encodes_and_its_decoder_begins_with_prefill(name: str) -> None:
    of = generated(name)
    assert kind(of) == "llm"
    layers = [
        one for one in of["operators"] if ".layers." in one["module"] or ".block." in one["module"]
    ]
    # What `generate` calls by itself is the outermost module.
    encoder = [one["phase"] for one in layers if ".decoder." not in one["module"]]
    assert set(encoder) == {"encode"}
    decoder = [one["phase"] for one in layers if ".decoder." in one["module"]]
    assert set(decoder) == {"prefill", "decode"}
    assert decoder == sorted(decoder, reverse=True)


def test_an_encoder_of_text_has_no_prefill() -> None:
    of = forward("bert")
    assert kind(of) == "llm"
    assert not having(of, phase="prefill")
    assert having(of, phase="encode")


@pytest.mark.parametrize("name", ["vit", "resnet18", "detr", "swin", "mlp_mixer"])
def test_images_are_vision(name: str) -> None:
    of = forward(name)
    assert kind(of) == "vision"
    assert counts(of, "phase")["vision_encode"] > len(of["operators"]) / 2
    assert not having(of, modality="text")


def test_both_halves_of_a_pair_are_what_they_are() -> None:
    model, inputs = of_zoo("clip")
    of = forward("clip")
    assert kind(of) == "multimodal"
    for one in of["operators"]:
        if ".layers." in one["module"]:
            is_vision = "vision_model" in one["module"]
            assert one["modality"] == ("vision" if is_vision else "text"), one
            if is_vision:
                assert one["phase"] == "vision_encode", one
    with torch.no_grad():
        image = told(lambda: model.get_image_features(pixel_values=inputs["pixel_values"]))
        text = told(lambda: model.get_text_features(input_ids=inputs["input_ids"]))
    assert (kind(image), kind(text)) == ("vision", "llm")


@pytest.mark.parametrize("name", ["vilt", "blip"])
def test_a_question_about_an_image_is_fused(name: str) -> None:
    of = forward(name)
    assert kind(of) == "multimodal"
    modalities = counts(of, "modality")
    assert modalities["text"]
    assert modalities["vision"]
    if name == "vilt":
        assert counts(of, "phase")["fusion"] > len(of["operators"]) / 3


class Recommender(nn.Module):
    """Two tables of bags, a dense tower, and what they say together."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(100, 8, mode="sum") for _ in range(2))
        self.dense = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, ids: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        pooled = [table(ids[:, at]) for at, table in enumerate(self.tables)]
        return self.top(torch.cat([*pooled, self.dense(dense)], 1)).sigmoid()


@pytest.mark.parametrize("frozen", [False, True])
def test_tables_and_a_tower_recommend(frozen: bool) -> None:
    torch.manual_seed(0)
    model = Recommender().to(REMOTE).requires_grad_(not frozen)
    ids, dense = torch.randint(0, 100, (4, 2, 3)).to(REMOTE), torch.randn(4, 4).to(REMOTE)
    of = told(model, ids, dense)
    assert kind(of) == "recsys"
    assert len(having(of, role="embedding.pooled_rows")) == 2
    assert set(counts(of, "modality")) == {"tabular"}


def test_two_tables_without_bags_recommend() -> None:
    torch.manual_seed(0)
    tables = [nn.Embedding(50, 8).to(REMOTE) for _ in range(2)]
    tower = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)).to(REMOTE)
    user, item = (torch.randint(0, 50, (6,)).to(REMOTE) for _ in range(2))
    of = told(lambda: tower(torch.cat([tables[0](user), tables[1](item)], 1)))
    assert kind(of) == "recsys"
    assert len(having(of, role="embedding.table")) == 2


class UNet(nn.Module):
    """Down, up, and what was seen on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = functional.relu(self.into(x))
        second = functional.relu(self.down(first))
        return self.out(torch.cat([self.up(second), first], 1))


def test_a_mask_is_made_after_the_image_was_seen() -> None:
    torch.manual_seed(0)
    of = told(UNet().to(REMOTE), torch.randn(1, 3, 32, 32).to(REMOTE))
    assert kind(of) == "vision"
    phases = [one["phase"] for one in of["operators"] if one["op"] == "aten::convolution"]
    assert phases == ["vision_encode", "vision_encode", "vision_decode", "vision_decode"]
    assert [one["role"] for one in of["operators"] if one["op"] == "aten::convolution"][1:3] == [
        "downsample",
        "upsample",
    ]


@pytest.mark.parametrize(
    "name", ["gpt2", "vit", "resnet18", "t5", "whisper", "clip", "lstm", "dlrm"]
)
def test_a_step_of_any_family_is_training(name: str) -> None:
    model, inputs = of_zoo(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        MODELS[name].loss(model(**inputs)).backward()
        optimizer.step()

    of = told(step)
    assert kind(of) == "training"
    phases = [one["phase"] for one in of["operators"]]
    assert {"forward", "backward", "optimizer"} <= set(phases)
    assert phases.index("backward") > phases.index("forward")
    assert phases.index("optimizer") > phases.index("backward")
    assert not {"prefill", "decode"} & set(phases)


def test_names_of_modules_have_no_say() -> None:
    """The same model, with every module called otherwise."""

    def scrambled(module: nn.Module) -> None:
        for child in module.children():
            scrambled(child)
        if isinstance(module, nn.ModuleList | nn.Sequential):
            return
        known = dict(module._modules)
        module._modules.clear()
        for at, (name, child) in enumerate(known.items()):
            module._modules[f"x{at}"] = child
            object.__setattr__(module, name, child)

    model, inputs = of_zoo("bert")
    before = told(lambda: model(**inputs))
    scrambled(model)
    after = told(lambda: model(**inputs))
    assert before["workload"] == after["workload"]
    for one, other in zip(before["operators"], after["operators"], strict=True):
        assert (one["phase"], one["role"]) == (other["phase"], other["role"])


def test_what_is_told_of_an_operator() -> None:
    layer = nn.Linear(8, 4).to(REMOTE)
    of = told(layer, torch.randn(2, 8).to(REMOTE))
    (one,) = of["operators"]
    assert one["op"] == "aten::addmm"
    assert one["module"] == "Linear"
    assert one["node"].endswith(genie.devices()[0].name)
    assert "test_explain.py" in one["line"]
    assert one["flops"] == 2 * 2 * 8 * 4
    assert one["bytes_written"] == 2 * 4 * 4
    assert one["ran_us"] > 0
    assert of["warnings"] or of["workload"]["confidence"] >= 0.7


def test_formats_and_what_is_none() -> None:
    layer, x = nn.Linear(8, 4).to(REMOTE), torch.randn(2, 8).to(REMOTE)
    assert "1 operators" in genie.explain(layer, x)
    page = genie.explain(layer, x, format="html")
    assert page.startswith("<!doctype html>")
    assert "aten::addmm" in page
    with pytest.raises(ValueError, match='"text", "json" or "html"'):
        genie.explain(layer, x, format="xml")  # type: ignore[arg-type]


def test_an_exception_of_the_program_is_the_programs() -> None:
    with pytest.raises(ZeroDivisionError):
        genie.explain(lambda: 1 / 0)
    # The session can be asked again.
    assert json.loads(genie.explain(lambda: None, format="json"))["operators"] == []


def test_a_graph_is_written_and_read_again(tmp_path: Path) -> None:
    model, inputs = of_zoo("llama")
    (ids,) = (inputs["input_ids"],)
    program = Path(__file__).parents[2] / "target/release/genie-controlplane"
    for name in ("graph.json", "graph.pb"):
        path = tmp_path / name
        genie.export_srg(model, ids, path=path)
        said = subprocess.run(
            [program, "explain", "--format", "json", path], check=True, capture_output=True
        )
        read = json.loads(said.stdout)
        assert read["workload"]["class"] == "llm"
        before = told(model, ids)["operators"]
        for one, other in zip(read["operators"], before, strict=True):
            assert one["ran_us"] > 0
            assert {**one, "ran_us": 0} == {**other, "ran_us": 0}
    broken = tmp_path / "broken.pb"
    broken.write_bytes(b"\xff" * 100)
    refused = subprocess.run([program, "explain", broken], check=False, capture_output=True)
    assert refused.returncode == 1
    assert b"genie.export_srg writes what this reads" in refused.stderr
