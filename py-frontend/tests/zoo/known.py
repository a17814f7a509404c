"""What fails, and why, by model and mode."""

from __future__ import annotations

from itertools import product

_BUT_VMAP = (
    "forward", "forward-bfloat16", "forward-float16", "train", "train-bfloat16", "autocast",
    "generate", "checkpoint", "functional", "compile-eager", "compile-aot_eager",
    "compile-genie",
)  # fmt: skip

_EXPERTS = (
    "mixtral-grouped_mm", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "gpt_oss",
    "deepseek_v2", "deepseek_v3", "glm4_moe", "ernie4_5_moe", "dots1", "minimax", "jamba",
    "qwen3_next",
)  # fmt: skip
_ATTENTION = (
    "gpt2", "gpt_bigcode", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma",
    "gemma3", "phi", "phi3", "olmo2", "cohere", "starcoder2", "stablelm", "granite", "glm4",
    "smollm3", "nemotron", "bitnet", "ctrl", "biogpt", "minicpm3", "nanochat", "diffllama",
    "mixtral-eager", "mixtral-grouped_mm", "mixtral-batched_mm", "qwen2_moe", "qwen3_moe", "olmoe",
    "phimoe", "granitemoe", "deepseek_v2", "deepseek_v3", "glm4_moe", "ernie4_5_moe", "jetmoe",
    "dots1", "minimax", "llama4", "lfm2", "jamba", "bamba", "nemotron_h", "bert", "bert-masked",
    "roberta", "distilbert", "albert", "electra", "modernbert", "nomic_bert", "eurobert",
    "mobilebert", "esm", "layoutlm", "transformer", "xmod", "t5", "mt5", "umt5", "bart", "mbart",
    "marian", "pegasus", "transformer-decoder", "blenderbot", "m2m_100", "plbart", "vit", "deit",
    "beit", "dinov2", "dinov2_with_registers", "swin", "vit_mae", "beit-masked", "ijepa",
    "segformer", "detr", "yolos", "wav2vec2", "wav2vec2-ctc", "hubert", "sew", "unispeech",
    "data2vec_audio", "wav2vec2_conformer", "whisper", "moonshine", "audio_spectrogram", "clip",
    "siglip", "chinese_clip", "altclip", "owlvit", "llava", "paligemma", "unet-denoising",
    "unet-sampling", "dit", "patchtst",
)  # fmt: skip
_WEIGHT_NORMS = (
    "wav2vec2", "wav2vec2-ctc", "hubert", "wavlm", "sew", "unispeech", "encodec", "wave_net",
)  # fmt: skip

KNOWN: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        product(_ATTENTION, ["compile-aot_eager"]),
        "fused attention without dropout gives no seed, where its shape function says one",
    ),
    **dict.fromkeys(
        product(set(_ATTENTION) - {"dit", "transformer"}, ["ensemble"]),
        "fused attention has no rule for `vmap`, and is chosen nevertheless",
    ),
    **dict.fromkeys(
        product(_EXPERTS, _BUT_VMAP),
        "transformers counts an expert's tokens by `histc` of whole numbers wherever the device "
        "is not called a CPU, and a node's CPU has it for floating-point numbers only",
    ),
    ("gpt_oss", "ensemble"): "as its other modes",
    **dict.fromkeys(
        product(_WEIGHT_NORMS, ["forward-float16"]),
        "`_weight_norm_interface` of float16 gives norms of float32, which was not predicted",
    ),
    ("ssdlite", "train-bfloat16"): "`smooth_l1_loss_backward` of bfloat16 with a target of float32 "
    "gives bfloat16, where float32 was predicted",
    **dict.fromkeys(
        product(["fnet", "autoformer"], ["autocast"]),
        "autocast is as on CUDA, where what a transform takes is not widened",
    ),
}
