#!/usr/bin/env python3
"""Makes the small random models of this folder, and what test_recall.c expects of them. README.md says the rest.

    python3 tests/golden/recall/make.py ORACLE      # the folder of reference.py; needs numpy

Beside each model stands recall.bin, little-endian, i32 unless said:

    g, s, sinks, recall (all in tokens), tile, cores, n_tokens, ids[n_tokens],
    clear, n_rows, rows[n_rows], f32 logits[n_rows][vocab], n_choices,
    for each tile and each key/value head of layer 0, where recall > 0: f32 gap, n, groups[n]

gap: how much the last chosen group weighs more than the first left out, over its own weight; infinite where
nothing was left out. clear: logits of positions before it hang on no choice, of any layer, with a gap below CLEAR.
"""
import struct
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, sys.argv[1])
import reference as R  # noqa: E402

HERE = Path(__file__).parent
CLEAR = 1e-4
VOCAB = 40


def tile_weights(q, k, g, s, r):
    """The weights that a choice ranks, for each tile: (those of groups that can be recalled, their numbers)."""
    (T, _, hd), n = q.shape, len(k) // g
    low, high = R.group_bounds(k, g, n)
    scores = np.maximum(q[:, :, None] * low, q[:, :, None] * high).sum(-1) / np.sqrt(hd)  # (T, R, n)
    can = ((np.arange(n) + 1) * g + s <= np.arange(1, T + 1)[:, None]) & (np.arange(n) >= r.sink_groups)
    e = np.where(can[:, None], np.exp(scores - scores.max(-1, keepdims=True)), 0)
    weights = (e / np.maximum(e.sum(-1, keepdims=True), 1e-300)).sum(1)
    for first in range(0, T, r.tile):
        groups = np.flatnonzero(can[first : first + r.tile].any(0))
        yield weights[first : first + r.tile].sum(0)[groups], groups


def choices(q, k, g, s, r):
    """For each tile: gap, chosen groups."""
    count = r.budget // g
    for weights, groups in tile_weights(q, k, g, s, r):
        order = np.argsort(-weights, kind="stable")
        gap = np.inf
        if len(groups) > count:
            last, out = weights[order[count - 1]], weights[order[count]]
            gap = (last - out) / last
        yield gap, np.sort(groups[order[:count]])


def run(model, tokens, g, s, r):
    """Logits, the choices of layer 0 as [tile][key/value head], and the position up to which all are clear."""
    heads, clear, oracle = [], len(tokens), R.recalled_groups

    def watched(q, k, *rest):
        nonlocal clear
        recalled, made = oracle(q, k, *rest), list(choices(q, k, *rest))
        for i, (gap, groups) in enumerate(made):
            seen = np.flatnonzero(recalled[i * r.tile : (i + 1) * r.tile].any(0))
            assert gap < CLEAR or np.array_equal(seen, groups)
            if gap < CLEAR:
                clear = min(clear, i * r.tile)
        heads.append(made)
        return recalled

    R.recalled_groups = watched
    logits = model.forward(tokens, g=g, s=s, recall=r)
    R.recalled_groups = oracle
    return logits, [c for tile in zip(*heads[: model.cfg.n_kv_heads]) for c in tile], clear


def ints(*values):
    return np.asarray(values, "<i4").tobytes()


def write_run(folder, tokens, g, s, r, logits, made, clear):
    rows = sorted(set(range(0, len(tokens), 9)) | set(range(len(tokens) - 6, len(tokens))))
    out = ints(g, s, r.sink_groups * g, r.budget, r.tile, r.cores, len(tokens), *tokens)
    out += ints(clear, len(rows), *rows) + logits[rows].astype("<f4").tobytes() + ints(len(made))
    for gap, groups in made:
        out += struct.pack("<f", gap) + ints(len(groups), *groups)
    (folder / "recall.bin").write_bytes(out)


def case(name, seed, heads, kv_heads, head_dim, g, s, length, tile, recall, sinks, cores):
    """The first of the seeds from `seed` on with clear choices all through."""
    cfg = R.Config(dim=16, hidden_dim=24, n_layers=2, n_heads=heads, n_kv_heads=kv_heads, vocab_size=VOCAB,
                   max_seq_len=1024, head_dim=head_dim)
    r = R.Recall(sinks, recall, tile, cores)
    for seed in range(seed, seed + 50):
        R.save_hf(HERE / name, cfg, R.random_weights(cfg, seed, std=0.15))
        tokens = np.random.default_rng(seed + 10000).integers(0, VOCAB, length)
        logits, made, clear = run(R.load_hf(HERE / name), tokens, g, s, r)
        if clear == length:
            break
    write_run(HERE / name, tokens, g, s, r, logits, made, clear)
    gaps = [gap for gap, _ in made]
    print(f"{name}: seed {seed}, clear up to {clear} of {length}, {len(made)} choices in layer 0, "
          f"{np.isinf(gaps).sum()} of them of all, least gap {min(gaps, default=np.inf):.1e}")


#     name               seed  heads   hd   g   s  length tile recall sinks cores
case("mha-tile1",         100, 4, 4,  16,  4,  8, 203,  1,  16, 1, True)
case("mha-everything",    200, 2, 2,  32, 16, 32, 333, 16, 336, 0, False)
case("mha-odd-groups",    300, 3, 3,  24,  5,  5, 171, 64,  25, 1, True)
case("mha-wide",          400, 2, 2,  48, 16, 16, 399, 16,  64, 1, True)
case("gqa2-odd-groups",   500, 4, 2,  16,  5, 15, 157,  8,  20, 2, False)
case("gqa2-wide",         600, 2, 1,  64, 16, 64, 397, 64,  48, 1, True)
case("gqa2-tile64",       700, 2, 1,  40,  4,  4, 263, 64,  40, 1, False)
case("gqa2-nothing",      800, 4, 2,  16,  4,  8, 183, 16,   0, 2, False)
case("gqa3-default-tile", 900, 6, 2,  16,  4, 16, 251, 16,  24, 1, False)
case("gqa3-single",      1000, 3, 1,  32,  1, 16, 187,  8,  12, 2, False)
case("gqa3-cores-only",  1100, 3, 1,  16,  5, 10, 226,  1,   0, 1, True)
case("gqa8-no-sinks",    1200, 8, 1,  16,  4, 12, 219,  8,   8, 0, True)
case("gqa8-tile1",       1300, 8, 1,  16, 16, 16, 309,  1,  32, 2, False)
case("gqa8-tile64",      1400, 8, 1,  16,  1,  8, 150, 64,  20, 1, False)
