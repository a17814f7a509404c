"""What fails, and why, by model and mode."""

from __future__ import annotations

from itertools import product

_BUT_VMAP = (
    "forward", "forward-bfloat16", "forward-float16", "train", "train-bfloat16", "autocast",
    "generate", "checkpoint", "functional", "compile-eager", "compile-aot_eager",
)  # fmt: skip

_EXPERTS = (
    "mixtral-grouped_mm", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "gpt_oss",
    "deepseek_v2", "deepseek_v3", "glm4_moe", "ernie4_5_moe", "dots1", "minimax",
)  # fmt: skip
_ATTENTION = (
    "gpt2", "gpt_bigcode", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma",
    "gemma3", "phi", "phi3", "olmo2", "cohere", "starcoder2", "stablelm", "granite", "glm4",
    "smollm3", "nemotron", "bitnet", "ctrl", "biogpt", "minicpm3", "nanochat", "diffllama",
    "mixtral-grouped_mm", "mixtral-batched_mm", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe",
    "granitemoe", "deepseek_v2", "deepseek_v3", "glm4_moe", "ernie4_5_moe", "dots1", "minimax",
    "llama4", "bert", "bert-masked", "roberta", "distilbert", "albert", "electra", "modernbert",
    "nomic_bert", "eurobert", "mobilebert", "esm", "layoutlm", "xmod", "bart", "mbart", "marian",
    "pegasus", "blenderbot", "m2m_100", "plbart", "vit", "deit", "dinov2",
    "dinov2_with_registers", "vit_mae", "ijepa", "clip", "siglip", "chinese_clip", "altclip",
    "owlvit", "llava", "paligemma", "transformer-decoder", "beit-masked",
)  # fmt: skip

KNOWN: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        product(_EXPERTS, _BUT_VMAP),
        "transformers counts an expert's tokens by `histc` of whole numbers wherever the device "
        "is not called a CPU, and a node's CPU has it for floating-point numbers only",
    ),
    **dict.fromkeys(
        product(_ATTENTION, ["ensemble"]),
        "fused attention has no rule for `vmap`, and is chosen nevertheless",
    ),
    ("gpt_oss", "ensemble"): "as its other modes",
    ("fnet", "autocast"): "autocast is as on CUDA, where no transform of bfloat16 is widened",
}
