#!/usr/bin/env python3
"""The weights of a model file as a Hugging Face folder, to train on: unpack.py MODEL.gguf TOKENIZER.model DIR

For files that `cca export` made of what default_model.py trains. Q8_0 weights come back as they are
rounded there. Wants the package gguf.
"""
import sys

import gguf
import numpy as np
import torch

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


def unpack(path, head_dim):
    """{name in llama.Llama: float32 tensor}; rows of q and k back in the order of Hugging Face."""
    out = {}
    for tensor in gguf.GGUFReader(path).tensors:
        weight = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32))
        block, number, name = (tensor.name.split(".") + ["", ""])[:3]
        if name in ("attn_q", "attn_k"):
            weight = weight.view(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        own = {"token_embd": "embed_tokens", "output_norm": "norm"}.get(block) or f"layers.{number}.{NAMES[name]}"
        out[own + ".weight"] = weight
    return out


if __name__ == "__main__":
    source, tokenizer, folder = sys.argv[1:]
    model = llama.Llama(llama.Config())
    model.load_state_dict(unpack(source, model.config.head_dim))
    llama.save(folder, model, 16, 256, tokenizer, torch.float16)
