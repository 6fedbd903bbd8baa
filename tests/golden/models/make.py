#!/usr/bin/env python3
"""Makes the small random models of this folder and the logits that test_model.c expects.

    python3 tests/golden/models/make.py ORACLE      # the folder of reference.py

needs numpy, torch and transformers (5 or newer). The folders `oracle-*` are written by the
float64 reference, the folders `hf-*` by transformers (loaded back and run in float64). Beside
each model stands logits.bin, little-endian:

    i32 n_tokens, i32 ids[n_tokens], i32 n_runs, then for each run
    i32 g, s (0, 0: full attention), length, n_rows, rows[n_rows]; f32 logits[n_rows][vocab]

Seeds are fixed below. Tolerances stand in test_model.c.
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, sys.argv[1])
import reference as R  # noqa: E402

HERE = Path(__file__).parent
VOCAB = 64


def write_logits(folder, tokens, runs):
    out = struct.pack("<i", len(tokens)) + np.asarray(tokens, "<i4").tobytes()
    out += struct.pack("<i", len(runs))
    for g, s, length, logits in runs:
        rows = sorted(set(range(0, length, 17)) | set(range(length - 6, length)))
        out += struct.pack("<4i", g, s, length, len(rows)) + np.asarray(rows, "<i4").tobytes()
        out += logits[rows].astype("<f4").tobytes()
    (folder / "logits.bin").write_bytes(out)


def oracle(name, seed, runs, arch="llama", qkv_bias=False, tied=False, spelling="rope_scaling", **shape):
    cfg = R.Config(**{
        "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": VOCAB,
        "max_seq_len": 4096, "rope_theta": 10000.0, **shape,
    })
    folder = HERE / f"oracle-{name}"
    kind = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[arch]
    R.save_hf(folder, cfg, R.random_weights(cfg, seed, qkv_bias=qkv_bias, tied=tied), kind, arch)
    if spelling == "rope_parameters":
        path = folder / "config.json"
        config = json.loads(path.read_text())
        theta, scaling = config.pop("rope_theta"), config.pop("rope_scaling") or {"rope_type": "default"}
        config["rope_parameters"] = {"rope_theta": theta, **scaling}
        path.write_text(json.dumps(config, indent=1))
    model = R.load_hf(folder)
    tokens = np.random.default_rng(seed + 1000).integers(0, VOCAB, max(r[2] for r in runs))
    write_logits(folder, tokens, [
        (g, s, n, model.forward(tokens[:n], g=g or None, s=s or None)) for g, s, n in runs
    ])


def oracles():
    short = [(0, 0, 141), (1, 16, 100), (4, 16, 141), (16, 64, 141)]
    oracle("mha", 1, short, n_kv_heads=4)
    oracle("gqa2-wide-heads", 2, short, head_dim=16)
    oracle("gqa3", 3, short, n_heads=6, n_kv_heads=2, head_dim=10)
    oracle("gqa8", 4, short, n_heads=8, n_kv_heads=1, head_dim=8, rope_theta=500000.0)
    oracle("tied", 5, short, tied=True, norm_eps=1e-6)
    oracle("long", 6, [(16, 256, 611), (4, 64, 611), (1, 64, 333)])
    oracle("linear", 7, short, rope_scaling={"type": "linear", "factor": 4.0})
    oracle("llama3", 8, short, head_dim=16, rope_theta=500000.0, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256})
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512}
    oracle("yarn", 9, short, head_dim=32, rope_scaling=yarn)
    oracle("yarn-factor", 10, short, head_dim=32, spelling="rope_parameters",
           rope_scaling={**yarn, "attention_factor": 0.8, "beta_fast": 16.0, "beta_slow": 2.0})
    oracle("qwen2", 11, short, arch="qwen2", qkv_bias=True, rope_theta=1e6)
    oracle("qwen2-wide-heads", 12, short, arch="qwen2", qkv_bias=True, head_dim=16, tied=True)
    oracle("qwen2-yarn", 13, short, arch="qwen2", qkv_bias=True, head_dim=32, rope_scaling=yarn)
    oracle("qwen2-llama3", 14, short, arch="qwen2", qkv_bias=True, head_dim=16, spelling="rope_parameters",
           rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 256})


def transformer(name, seed, config, dtype, **save):
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    folder = HERE / f"hf-{name}"
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in key else 0.15 * torch.randn_like(p))
    model.to(dtype).save_pretrained(folder, **save)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    tokens = np.random.default_rng(seed).integers(0, VOCAB, 120)
    with torch.no_grad():
        logits = model(torch.tensor(tokens)[None]).logits[0].double().numpy()
    write_logits(folder, tokens, [(0, 0, len(tokens), logits)])


def transformers_folders():
    import torch
    from transformers import LlamaConfig, MistralConfig, Qwen2Config

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 2048}
    transformer("llama", 21, LlamaConfig(**shape), torch.float32)
    transformer("llama-shards-bf16", 22, LlamaConfig(**shape), torch.bfloat16, max_shard_size="12KB")
    transformer("llama3-tied", 23, LlamaConfig(**shape, tie_word_embeddings=True, rope_parameters={
        "rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}), torch.float32)
    transformer("llama-yarn", 24, LlamaConfig(**shape, rope_parameters={
        "rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 64}), torch.float32)
    transformer("llama-linear-f16", 25, LlamaConfig(**shape, head_dim=16, rope_parameters={
        "rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}), torch.float16)
    transformer("qwen2", 26, Qwen2Config(**shape), torch.bfloat16)
    transformer("mistral", 27, MistralConfig(**shape, head_dim=16, sliding_window=None), torch.float32)


oracles()
transformers_folders()
