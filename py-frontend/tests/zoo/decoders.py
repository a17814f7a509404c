"""Language models that predict the next token."""

from __future__ import annotations

from .model import GENERATES, VOCABULARY, Model, causal, labelled, pretrained

_OPENAI = {
    "n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 64,
    "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 119, "pad_token_id": 0,
}  # fmt: skip


def _openai(kind: str, head: str = "LMHeadModel", **options: object) -> Model:
    """Configurations that speak of `n_embd`."""
    return Model(pretrained(kind, head, **_OPENAI, **options), labelled, generates=GENERATES)


MODELS = {
    "gpt2": _openai("GPT2"),
    "gpt_bigcode": _openai("GPTBigCode", "ForCausalLM"),
    "gptj": _openai("GPTJ", "ForCausalLM", rotary_dim=4),
    "codegen": _openai("CodeGen", "ForCausalLM", rotary_dim=4),
    "gpt_neo": causal(
        "GPTNeo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]
    ),
    "gpt_neox": causal("GPTNeoX"),
    "opt": causal("OPT", ffn_dim=48, word_embed_proj_dim=16),
    "bloom": causal("Bloom", n_layer=2, n_head=4),
    "mpt": causal("Mpt", d_model=32, n_heads=4, n_layers=2),
    "falcon": causal("Falcon", ffn_hidden_size=48, new_decoder_architecture=False),
    "llama": causal("Llama"),
    "mistral": causal("Mistral", sliding_window=4),
    "qwen2": causal("Qwen2"),
    "qwen3": causal("Qwen3", head_dim=8),
    "gemma": causal("Gemma", head_dim=8),
    "gemma2": causal("Gemma2", head_dim=8, sliding_window=4),
    "gemma3": Model(
        pretrained("Gemma3", "ForCausalLM", config="Gemma3Text", head_dim=8, sliding_window=4),
        labelled,
        generates=GENERATES,
    ),
    "phi": causal("Phi"),
    "phi3": causal("Phi3"),
    "olmo2": causal("Olmo2"),
    "cohere": causal("Cohere"),
    "starcoder2": causal("Starcoder2"),
    "stablelm": causal("StableLm"),
    "granite": causal("Granite"),
    "glm4": causal("Glm4", head_dim=8),
    "smollm3": causal("SmolLM3"),
    "nemotron": causal("Nemotron"),
    "bitnet": causal("BitNet"),
    "ctrl": causal("CTRL", "LMHeadModel", n_embd=32, n_head=4, n_layer=2, dff=48, n_positions=64),
    "xglm": causal("XGLM", d_model=32, ffn_dim=48, num_layers=2, attention_heads=4),
    "biogpt": causal("BioGpt"),
    "minicpm3": causal(
        "MiniCPM3",
        q_lora_rank=16,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        num_key_value_heads=4,
    ),
    "nanochat": causal("NanoChat"),
    "diffllama": causal("DiffLlama"),
}
