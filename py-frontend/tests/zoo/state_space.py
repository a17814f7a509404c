"""Sequences by states: scans, linear attention, long convolutions."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .model import GENERATES, VOCABULARY, Inputs, Model, causal, labelled, pretrained

WIDTH, STATES = 16, 4


class Scan(nn.Module):
    """States whose steps depend on what is read (as in Mamba), one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 2 * WIDTH)
        self.convolution = nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH, padding=2)
        self.choice = nn.Linear(WIDTH, WIDTH + 2 * STATES)
        self.decay = nn.Parameter(torch.rand(WIDTH, STATES))
        self.outer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read, gate = self.inner(x).chunk(2, 2)
        read = functional.silu(self.convolution(read.mT)[..., : x.shape[1]].mT)
        sizes = [WIDTH, STATES, STATES]
        step, write, look = self.choice(read).split(sizes, 2)
        step = functional.softplus(step)
        state = x.new_zeros(len(x), WIDTH, STATES)
        given = []
        for at in range(x.shape[1]):
            keep = torch.exp(-step[:, at, :, None] * self.decay.exp())
            state = keep * state + (step * read)[:, at, :, None] * write[:, at, None]
            given.append((state * look[:, at, None]).sum(2))
        return self.outer(torch.stack(given, 1) * functional.silu(gate))


class ReceptanceKeys(nn.Module):
    """Linear attention with a decay for each channel, and shifts in time (as in RWKV)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(3, WIDTH))
        self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.decay = nn.Parameter(torch.randn(WIDTH))
        self.bonus = nn.Parameter(torch.randn(WIDTH))
        self.outer = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = functional.pad(x, (0, 0, 1, -1))
        mixed = (torch.lerp(before, x, share) for share in self.mix)
        gate, key, value = (part(one) for part, one in zip(self.parts, mixed, strict=True))
        above = below = torch.zeros_like(x[:, 0])
        given = []
        for at in range(x.shape[1]):
            weight = key[:, at].exp()
            now = (self.bonus + key[:, at]).exp()
            given.append((above + now * value[:, at]) / (below + now))
            decay = torch.exp(-self.decay.exp())
            above = decay * above + weight * value[:, at]
            below = decay * below + weight
        return self.outer(torch.sigmoid(gate) * torch.stack(given, 1))


class LongConvolution(nn.Module):
    """A state space with a diagonal transition as one long convolution (S4D)."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.rand(WIDTH, STATES))
        self.turn = nn.Parameter(torch.rand(WIDTH, STATES))
        self.weight = nn.Parameter(torch.randn(WIDTH, STATES, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        pole = torch.complex(-self.rate.exp(), self.turn)
        times = torch.arange(length, device=x.device)
        powers = torch.exp(pole[..., None] * times)
        kernel = (torch.view_as_complex(self.weight)[..., None] * powers).sum(1).real
        spectrum = torch.fft.rfft(x.mT, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length].mT


class Retention(nn.Module):
    """Attention without a softmax, that fades with distance (RetNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = nn.RMSNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.parts(x).chunk(3, 2)
        at = torch.arange(x.shape[1], device=x.device)
        distance = at[:, None] - at
        fading = torch.where(distance >= 0, 0.9 ** distance.clamp(min=0), 0.0).to(x.dtype)
        return self.norm(torch.einsum("bqw,bkw,qk,bkv->bqv", query, key, fading, value))


class Language(nn.Module):
    """Predicts tokens by layers of one of them."""

    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.layers = nn.ModuleList(layer() for _ in range(2))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(input_ids)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        return self.head(x)


def _tokens() -> Inputs:
    return {"input_ids": torch.randint(VOCABULARY, (2, 9))}


def _language(layer: type[nn.Module]) -> Model:
    return Model(lambda: Language(layer), _tokens)


_MAMBA = {"state_size": 4, "expand": 2, "conv_kernel": 3, "time_step_rank": 4}

MODELS = {
    "selective_scan": _language(Scan),
    "receptance": _language(ReceptanceKeys),
    "s4d": _language(LongConvolution),
    "retention": _language(Retention),
    "mamba": causal("Mamba", **_MAMBA),
    "mamba2": causal(
        "Mamba2", state_size=4, conv_kernel=3, num_heads=8, head_dim=8, n_groups=2, chunk_size=4
    ),
    "falcon_mamba": causal("FalconMamba", **_MAMBA),
    "rwkv": Model(
        pretrained("Rwkv", "ForCausalLM", attention_hidden_size=32, context_length=64),
        labelled,
        generates={"greedy": GENERATES["greedy"]},
    ),
    "lfm2": causal("Lfm2", layer_types=["conv", "full_attention"]),
    "jamba": causal(
        "Jamba",
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
        # Grouped heads are summed in another order: in half types a router then chooses otherwise.
        num_key_value_heads=4,
    ),
    "bamba": causal(
        "Bamba",
        attn_layer_indices=[1],
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_n_groups=2,
        mamba_d_state=4,
        mamba_chunk_size=4,
    ),
    "qwen3_next": causal(
        "Qwen3Next",
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        head_dim=8,
    ),
    "nemotron_h": causal(
        "NemotronH",
        layers_block_type=["mamba", "attention"],
        mamba_num_heads=8,
        mamba_head_dim=8,
        n_groups=2,
        ssm_state_size=4,
        chunk_size=4,
        head_dim=8,
        hybrid_override_pattern="M*",
    ),
}
