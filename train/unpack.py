#!/usr/bin/env python3
"""The weights of a model file as a Hugging Face folder, to train on.

    unpack.py MODEL.gguf DIR [--tokenizer tokenizer.model]

Of Llamas whose output is the embedding, in any type that the package gguf reads; weights come back as they are
rounded there. The tokenizer is the file's own where it is a byte-level BPE; a SentencePiece model is to be named.
"""
import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import tokenizers
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

import model as llama

NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "embed_tokens", "output_norm": "norm"}

# How texts are cut before they are merged, by the file's name for it; transformers takes GPT-2's for all.
CUTS = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
}  # fmt: skip


def value(file, key, default=None):
    """Of a key of the file."""
    field = file.get_field(key)
    if field is None and default is None:
        raise SystemExit(f"key {key} is missing")
    return default if field is None else field.contents()


def config_of(file):
    """The llama.Config that the keys and shapes of a gguf.GGUFReader tell."""
    if value(file, "general.architecture") != "llama":
        raise SystemExit(f"the architecture is {value(file, 'general.architecture')}, not llama")
    if value(file, "llama.rope.scaling.type", "none") != "none":
        raise SystemExit("key llama.rope.scaling.type: scaled RoPE is not unpacked")
    if any(t.name in ("output.weight", "rope_freqs.weight") for t in file.tensors):
        raise SystemExit("tensors output.weight and rope_freqs.weight are not trained here")
    rows = {t.name: int(t.shape[-1]) for t in file.tensors}
    heads = value(file, "llama.attention.head_count")
    return llama.Config(
        hidden_size=value(file, "llama.embedding_length"),
        intermediate_size=value(file, "llama.feed_forward_length"),
        num_hidden_layers=value(file, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=value(file, "llama.attention.head_count_kv", heads),
        head_dim=rows["blk.0.attn_q.weight"] // heads,
        vocab_size=rows["token_embd.weight"],
        max_position_embeddings=value(file, "llama.context_length"),
        rope_theta=float(value(file, "llama.rope.freq_base", 1e4)),
        rms_norm_eps=float(str(np.float32(value(file, "llama.attention.layer_norm_rms_epsilon")))),  # 1e-5, not what f32 makes of it
    )


def name_here(name):
    """llama.Llama's for a tensor of the file."""
    block, number, part = (name.split(".") + ["", ""])[:3]
    return (TOP.get(block) or f"layers.{number}.{NAMES[part]}") + ".weight"


def paired(weight, head_dim):
    """Rows of q and k: of Hugging Face's halves k and k + head_dim / 2, as the file has them, side by side."""
    return weight.reshape(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def halved(weight, head_dim):
    """The other way round."""
    return weight.reshape(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def unpack(file, head_dim):
    """{name in llama.Llama: float32 tensor} of a gguf.GGUFReader."""
    out = {}
    for tensor in file.tensors:
        weight = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32))
        turned = tensor.name.split(".")[-2] in ("attn_q", "attn_k")
        out[name_here(tensor.name)] = halved(weight, head_dim) if turned else weight
    return out


def load(path):
    """llama.Llama of a model file."""
    file = gguf.GGUFReader(path)
    model = llama.Llama(config_of(file))
    model.load_state_dict(unpack(file, model.config.head_dim))
    return model


def tokenizer_of(path):
    """The tokenizers.Tokenizer of a file with a byte-level BPE."""
    file, path = gguf.GGUFReader(path), Path(path)
    kind = value(file, "tokenizer.ggml.model")
    if kind != "gpt2":
        raise SystemExit(f"{path}: the tokenizer is {kind}, no byte-level BPE; --tokenizer names a SentencePiece model")
    cut = value(file, "tokenizer.ggml.pre", "gpt-2")
    if cut not in CUTS:
        raise SystemExit(f"{path}: tokenizer.ggml.pre is {cut}, none of {', '.join(CUTS)}")
    made = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    made.pre_tokenizer = CUTS[cut]()
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return made


def template_of(path):
    """The chat template of a file, or nothing."""
    return value(gguf.GGUFReader(path), "tokenizer.chat_template", "")


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("source", help="GGUF file")
    p.add_argument("folder", help="to write")
    p.add_argument("--tokenizer", help="SentencePiece model; else the file's own")
    p.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the weights; float32 keeps them all")
    args = p.parse_args(argv)
    model, file, folder = load(args.source), gguf.GGUFReader(args.source), Path(args.folder)
    made = None if args.tokenizer else tokenizer_of(args.source)
    cca = [value(file, f"cca.{name}", default) for name, default in (("group_size", 16), ("window_size", 1024), ("tuned", False))]
    ids = {f"{name}_token_id": value(file, f"tokenizer.ggml.{name}_token_id", i) for i, name in ((1, "bos"), (2, "eos"))}
    llama.save(folder, model, *cca[:2], args.tokenizer, getattr(torch, args.dtype), tuned=cca[2], **ids)
    if made:
        made.save(str(folder / "tokenizer.json"))
        template = template_of(args.source)
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template} if template else {}) + "\n")


if __name__ == "__main__":
    main()
