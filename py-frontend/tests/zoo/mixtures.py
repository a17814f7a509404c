"""Language models with mixtures of experts."""

from __future__ import annotations

from .model import GENERATES, Model, causal, labelled, pretrained

# As many heads of keys as of queries: grouped ones are computed in another order than on the CPU,
# and which experts are chosen must not hang on a rounding.
_EXPERTS = {
    "num_key_value_heads": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
#: A product for each expert, one product of groups (`torch._grouped_mm`), and one of a batch.
_WAYS = ("eager", "grouped_mm", "batched_mm")


def _mixture(kind: str, **options: object) -> Model:
    return causal(kind, **{**_EXPERTS, **options})


_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "head_dim": 8,
}

MODELS = {
    **{f"mixtral-{way}": _mixture("Mixtral", experts_implementation=way) for way in _WAYS},
    "qwen2_moe": _mixture("Qwen2Moe"),
    "qwen3_moe": _mixture("Qwen3Moe", head_dim=8),
    "olmoe": _mixture("Olmoe"),
    "phimoe": _mixture("Phimoe"),
    "granitemoe": _mixture("GraniteMoe"),
    "gpt_oss": _mixture("GptOss", head_dim=8, sliding_window=4),
    "deepseek_v2": _mixture("DeepseekV2", **_LATENT),
    "deepseek_v3": _mixture("DeepseekV3", **_LATENT),
    "glm4_moe": _mixture("Glm4Moe", head_dim=8, n_group=1, topk_group=1, first_k_dense_replace=1),
    "ernie4_5_moe": _mixture("Ernie4_5_Moe", moe_num_experts=4, moe_k=2),
    "jetmoe": _mixture("JetMoe", kv_channels=8),
    "dots1": _mixture(
        "Dots1",
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        n_shared_experts=1,
        routed_scaling_factor=1.0,
    ),
    "minimax": _mixture("MiniMax", head_dim=8, block_size=4),
    "llama4": Model(
        pretrained(
            "Llama4",
            "ForCausalLM",
            config="Llama4Text",
            head_dim=8,
            intermediate_size_mlp=48,
            num_local_experts=4,
            num_experts_per_tok=1,
            num_key_value_heads=4,
        ),
        labelled,
        generates=GENERATES,
    ),
}
