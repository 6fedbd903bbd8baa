#!/usr/bin/env python3
"""Why facts that open a document are missed: opening.py FOLDER --valid BOOKS.tar.xz

Asks a model (a Hugging Face folder of default_model.py or unpack.py) about facts in the first paragraph
of documents of 2,048 tokens: with CCA, with the start token kept out of the first group's pooling and
seen by itself, and with full attention. And tells how much of the first core each head takes from it.
"""
import argparse
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F

import batches
import books
import cca
import model as llama
from default_model import matches

weights = []  # of the start token in the first core, (heads,) of each call


def first_core(q, k, v, group_size, begin):
    """Key and value of the first group's core, pooled from `begin` on, and the weight of what comes first."""
    share = q.shape[1] // k.shape[1]
    keys, values = (x[:, :, begin:group_size].repeat_interleave(share, 1) for x in (k, v))
    weight = ((q[:, :, group_size - 1 : group_size] * keys).sum(-1, keepdim=True) / math.sqrt(q.shape[-1])).softmax(2)
    return (weight * keys).sum(2), (weight * values).sum(2), weight[:, :, 0, 0]


def apart(q, k, v, group_size, window):
    """CCA-Attention with the start token outside of all groups, where each query sees it."""
    n = q.shape[2] // group_size
    keys, values = cca.concatenated(q, k, v, group_size, n)
    weights.append(first_core(q, k, v, group_size, 0)[2].mean(0))
    keys[:, :, 0], values[:, :, 0], _ = first_core(q, k, v, group_size, 1)
    mask = cca.dense_mask(q.shape[2], group_size, window, q.device).clone()
    mask[:, n] = True
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--valid", required=True)
    p.add_argument("--count", type=int, default=40, help="documents")
    args = p.parse_args()
    tokenizer, settings = args.folder / "tokenizer.model", json.loads((args.folder / "config.json").read_text())["cca"]
    model, rows = llama.load(args.folder), batches.Rows(books.load(args.valid, tokenizer), tokenizer)
    rng, attention, right = random.Random(1), cca.attention, {}
    ways = {"CCA": attention, "start token apart": apart, "full attention": lambda q, k, v, *_: attention(q, k, v, 1, 1)}
    asked = 0
    for _ in range(args.count):
        ids, kinds, depths = rows.row(rng, 2048, 8, False, opening=1)
        asked += depths.count(0)
        for name, way in ways.items():
            cca.attention = way
            with torch.no_grad():
                hidden = model(torch.tensor([[1, *ids[:-1].tolist()]]), settings["group_size"], settings["window_size"])
                hits = matches((model.logits(hidden).argmax(-1).numpy() == ids), kinds)
            right[name] = right.get(name, 0) + sum(h for h, depth in zip(hits, depths) if depth == 0)
    for name, n in right.items():
        print(f"{name}: {n} of {asked}")
    layers = model.config.num_hidden_layers
    mean = torch.stack(weights).view(-1, layers, model.config.num_attention_heads).mean(0)
    print(f"of the first core the start token has {mean.mean():.2f} on average; by layer and head:")
    for layer in mean.tolist():
        print(" ".join(f"{w:.2f}" for w in layer))


if __name__ == "__main__":
    main()
