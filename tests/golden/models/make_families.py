#!/usr/bin/env python3
"""Makes the folders hf-FAMILY beside this file: small random models of the architectures near Llama.

    python3 tests/golden/models/make_families.py [FAMILY ...]
    python3 tests/golden/models/make_families.py greedy    # 50 tokens of all folders that are there, make.py's, too

needs numpy, torch and transformers (5 or newer). The files in converted/ are what llama.cpp's convert_hf_to_gguf.py (of October 2026, --outtype f32, without a vocabulary) makes of
three of them. logits.bin is as make.py describes it: transformers' own
logits in float64, with full attention. Seeds are fixed below, tolerances stand in test_model.c.
"""
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
torch.set_num_threads(1)  # these are small
VOCAB, TOKENS, GREEDY = 64, 120, 50
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}


def rope(theta=10000.0, **more):
    return {"rope_theta": theta, "rope_type": "default"} | more


def longrope(pairs, **more):
    short, long = [1 + 0.05 * k for k in range(pairs)], [1.5 + 1.25 * k for k in range(pairs)]
    return rope(rope_type="longrope", short_factor=short, long_factor=long, **more)


MINISTRAL3 = rope(1e6, rope_type="yarn", factor=16.0, original_max_position_embeddings=32, max_position_embeddings=2048,
                  beta_fast=8.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)
VISION = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "head_dim": 8, "image_size": 16, "patch_size": 8}


FAMILIES = {  # name: seed, kind of configuration, what differs from SHAPE
    "qwen3": (61, "Qwen3", {"head_dim": 16, "rope_parameters": rope(1e6)}),
    "smollm3": (63, "SmolLM3", {"num_hidden_layers": 5, "head_dim": 8, "rope_parameters": rope(2e6)}),
    "granite": (64, "Granite", {"embedding_multiplier": 6.0, "residual_multiplier": 0.22, "attention_multiplier": 0.3,
                                "logits_scaling": 5.0}),
    "granite-tied": (65, "Granite", {"embedding_multiplier": 12.0, "residual_multiplier": 0.4, "attention_multiplier": 0.5,
                                     "logits_scaling": 8.0, "tie_word_embeddings": True}),
    "ernie4_5": (66, "Ernie4_5", {"head_dim": 16, "tie_word_embeddings": False}),
    "helium": (67, "Helium", {"head_dim": 8}),
    "seed_oss": (68, "SeedOss", {"head_dim": 16}),
    "hunyuan": (69, "HunYuanDenseV1", {"head_dim": 16, "rope_parameters": rope(alpha=100.0, rope_type="dynamic", factor=1.0)}),
    "arcee": (70, "Arcee", {"hidden_act": "relu2"}),
    "olmo2": (71, "Olmo2", {"rope_parameters": rope(5e5)}),
    "exaone4": (72, "Exaone4", {"head_dim": 8, "sliding_window": None, "sliding_window_pattern": None,
                                "layer_types": ["full_attention"] * 2}),
    "phi3": (73, "Phi3", {"original_max_position_embeddings": 2048}),
    "phi3-partial": (74, "Phi3", {"original_max_position_embeddings": 2048, "num_attention_heads": 2, "num_key_value_heads": 1,
                                  "rope_parameters": rope(partial_rotary_factor=0.75)}),
    "glm4": (75, "Glm4", {"head_dim": 16, "attention_bias": True, "rope_parameters": rope(partial_rotary_factor=0.5)}),
    "exaone4-windows": (86, "Exaone4", {"head_dim": 8, "num_hidden_layers": 4, "sliding_window": 24, "sliding_window_pattern": 4}),
    "mistral-window": (77, "Mistral", {"head_dim": 8, "sliding_window": 16}),
    "qwen3-windows": (78, "Qwen3", {"head_dim": 8, "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 20,
                                    "max_window_layers": 0,
                                    "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "olmo3": (92, "Olmo3", {"num_hidden_layers": 5, "sliding_window": 24, "rope_parameters": {
        "full_attention": rope(5e5, rope_type="yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=16.0,
                               beta_slow=1.0),
        "sliding_attention": rope(5e5)}}),
    "ministral": (93, "Ministral", {"head_dim": 8, "num_hidden_layers": 4, "sliding_window": 20,
                                    "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}),
    "ministral3": (88, "Ministral3", {"head_dim": 16, "rope_parameters": MINISTRAL3}),
    "mistral3": (89, "Mistral3", {}),
    "phi3-longrope": (95, "Phi3", {"max_position_embeddings": 1024, "original_max_position_embeddings": 64,
                                   "rope_parameters": longrope(4)}),
    "phi3-longrope-partial": (91, "Phi3", {
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024, "tie_word_embeddings": True,
        "original_max_position_embeddings": 64, "rope_parameters": longrope(6, partial_rotary_factor=0.75)}),
    "qwen3-tied": (62, "Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
}


def new_model(kind, changes):
    if kind == "Mistral3":
        text = {"model_type": "ministral3", "head_dim": 16, "rope_parameters": MINISTRAL3, **SHAPE}
        config = transformers.Mistral3Config(text_config=text, vision_config=VISION, tie_word_embeddings=False)
        return transformers.Mistral3ForConditionalGeneration(config)
    return AutoModelForCausalLM.from_config(getattr(transformers, kind + "Config")(**{**SHAPE, **changes}))


def load(folder):
    kind = "Mistral3ForConditionalGeneration" if folder.name == "hf-mistral3" else "AutoModelForCausalLM"
    return getattr(transformers, kind).from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens))[None]).logits[0].double().numpy()


def make(name, seed, kind, changes):
    torch.manual_seed(seed)
    folder = HERE / f"hf-{name}"
    model = new_model(kind, changes)
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in key else 0.15 * torch.randn_like(p))
    model.to(torch.float32).save_pretrained(folder)
    model = load(folder)
    tokens = np.random.default_rng(seed).integers(0, VOCAB, TOKENS)
    lengths = [TOKENS, 60] if "longrope" in name else [TOKENS]
    out = struct.pack("<i", TOKENS) + np.asarray(tokens, "<i4").tobytes() + struct.pack("<i", len(lengths))
    for n in lengths:
        rows = sorted(set(range(0, n, 17)) | set(range(n - 6, n)))
        out += struct.pack("<4i", 0, 0, n, len(rows)) + np.asarray(rows, "<i4").tobytes()
        out += logits_of(model, tokens[:n])[rows].astype("<f4").tobytes()
    (folder / "logits.bin").write_bytes(out)
    print(name, sorted({k.split(".", 3)[-1] for k in model.state_dict() if ".0." in k}))


def continue_greedily(model, prompt):
    """The ids, and by how much the first of each two logits is above the second, over their spread."""
    ids, margin = list(prompt), 1.0
    for _ in range(GREEDY):
        logits = logits_of(model, ids)[-1]
        second, first = np.sort(logits)[-2:]
        margin = min(margin, (first - second) / (logits.max() - logits.min()))
        ids.append(int(logits.argmax()))
    return ids, margin


def write_greedy(folder):
    """greedy.bin: i32 n_runs, then for each run i32 n_prompt, n_all, ids[n_all]. Every token is that of a forward pass
    over all before it. Prompts are chosen so that no token is nearly another one, and of eight so that the answer has the most different ones."""
    model, tokens = load(folder), np.fromfile(folder / "logits.bin", "<i4", TOKENS + 1)[1:].tolist()
    lengths = [10, 70] if "longrope" in folder.name else [16]  # within and beyond the original length
    out = [len(lengths)]
    for n in lengths:
        tried = [continue_greedily(model, tokens[start:start + n]) for start in range(8)]
        ids, margin = max((t for t in tried if t[1] > 2e-4), key=lambda t: len(set(t[0][n:])))
        out += [n, len(ids), *ids]
        print(folder.name, n, f"prompt tokens, margin {margin:.1e},", len(set(ids[n:])), "tokens", flush=True)
    (folder / "greedy.bin").write_bytes(np.asarray(out, "<i4").tobytes())


if sys.argv[1:] == ["greedy"]:
    for logits in sorted(HERE.glob("hf-*/logits.bin")):
        write_greedy(logits.parent)
else:
    for wanted in sys.argv[1:] or FAMILIES:
        make(wanted, *FAMILIES[wanted])
        write_greedy(HERE / f"hf-{wanted}")
