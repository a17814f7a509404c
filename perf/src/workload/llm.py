"""One program of `genie-perf workload llm`: it decodes, and says what that took.

Its argument is JSON. It says `{"ready": true}` when its cache holds the context and it has
decoded a few tokens, waits for a line, decodes `tokens` more, and says what was counted meanwhile.
"""

import json
import sys
import time

try:
    import genie
    import torch
    import transformers
except ImportError as error:
    sys.exit(f"the programs need genie, torch and transformers: {error}")

WARM_TOKENS = 4
GENERATED_TOKENS = 12
GENERATE_PROMPT = 32
DEVICE = "remote_accelerator:0"


def build(name: str, positions: int) -> torch.nn.Module:
    """A model with random weights, the same in every program."""
    torch.manual_seed(17)
    tiny = name.endswith("-tiny")
    vocabulary = 500 if tiny else 32000
    # No end, so that all decode as much; no padding, which would be looked for in every token.
    special = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": None}
    if name.startswith("gpt2"):
        config = transformers.GPT2Config(
            n_layer=2 if tiny else 12,
            n_embd=64 if tiny else 768,
            n_head=4 if tiny else 12,
            vocab_size=500 if tiny else 50257,
            n_positions=positions,
            **special,
        )
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.LlamaConfig(
        num_hidden_layers=2 if tiny else 12,
        hidden_size=64 if tiny else 768,
        intermediate_size=128 if tiny else 2048,
        num_attention_heads=4 if tiny else 12,
        num_key_value_heads=2 if tiny else 4,
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        **{**special, "eos_token_id": None},
    )
    return transformers.LlamaForCausalLM(config).eval()


def counted() -> dict:
    """What the session has counted so far."""
    stats = genie.stats()
    links = {f"node{link['from']}>node{link['to']}": link["bytes"] for link in stats["links"]}
    links["clients>nodes"] = stats["bytes_sent"]
    links["nodes>clients"] = stats["bytes_received"]
    return {
        "links": links,
        "round_trips": stats["round_trips"],
        "transfers": stats["moves"],
        "placement_hits": stats["placement_hits"],
    }


def since(before: dict) -> dict:
    """What it has counted since then."""
    now = counted()
    links = {link: now["links"][link] - before["links"].get(link, 0) for link in now["links"]}
    taken = {key: now[key] - before[key] for key in now if key != "links"}
    return {"links": links, **taken}


def decode(model, token, cache, count: int):
    """Plain greedy decoding, a token at a time, each looked at."""
    tokens, took = [], []
    for _ in range(count):
        began = time.perf_counter()
        output = model(token, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        token = output.logits[:, -1].argmax(-1, keepdim=True)
        tokens.append(token.item())
        took.append((time.perf_counter() - began) * 1e3)
    return token, cache, tokens, took


@torch.inference_mode()
def main() -> None:
    """Decodes."""
    asked = json.loads(sys.argv[1])
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    genie.connect(asked["addresses"], placement="pool", policy=asked["policy"])
    context = asked["context"]
    model = build(asked["model"], context + asked["tokens"] + WARM_TOKENS + 8)
    torch.manual_seed(1000 + asked["client"])
    prompt = torch.randint(2, 499, (1, context - WARM_TOKENS))
    model.to(DEVICE)
    output = model(prompt.to(DEVICE), use_cache=True)
    token = output.logits[:, -1].argmax(-1, keepdim=True)
    token, cache, warm, _ = decode(model, token, output.past_key_values, WARM_TOKENS)
    print(json.dumps({"ready": True}), flush=True)
    if not sys.stdin.readline():
        return
    before, began = counted(), time.perf_counter()
    token, cache, tokens, took = decode(model, token, cache, asked["tokens"])
    wall = time.perf_counter() - began
    taken = since(before)
    del cache
    began = time.perf_counter()
    generated = model.generate(
        prompt[:, :GENERATE_PROMPT].to(DEVICE),
        max_new_tokens=GENERATED_TOKENS,
        min_new_tokens=GENERATED_TOKENS,
        do_sample=False,
    )
    generated = generated[0].tolist()
    print(
        json.dumps(
            {
                **taken,
                "latency_ms": took,
                "seconds": wall,
                "tokens": warm + tokens,
                "generated": generated,
                "generate_seconds": time.perf_counter() - began,
            }
        ),
        flush=True,
    )


main()
