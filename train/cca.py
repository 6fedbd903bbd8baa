"""CCA-Attention for training: differentiable, the definition of docs/MODEL.md.

    out = cca.attention(q, k, v, group_size=16, window_size=256)

q is (batch, heads, length, head_dim), k and v are (batch, kv_heads, length, head_dim), q and k
already rotated. With positions i from 1, groups of g tokens and a window of s:

    core t     = softmax of q[tg] . k / sqrt(head_dim) over the group (t-1)g+1 .. tg, applied to
                 its keys and values; one for each *query* head
    query i    sees cores 1 .. j(i), j(i) = max(0, floor((i - s) / g)), and raw tokens
                 j(i)g+1 .. i, in one softmax

All of it follows from one question: is group t seen as its core or as raw tokens by query i?
As its core where t*g + s <= i.
"""
import functools
import math

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # queries and keys in a block of FlexAttention's sparse mask


def check(group_size, window_size):
    if group_size < 1 or window_size < group_size or window_size % group_size:
        raise ValueError(f"the window {window_size} is no multiple of the group size {group_size}")


def cores(q, k, v, group_size):
    """Core keys and values of all complete groups: two of (batch, heads, length // g, head_dim)."""
    batch, heads, length, width = q.shape
    kv_heads, n = k.shape[1], length // group_size
    exact = torch.promote_types(q.dtype, torch.float32)

    def grouped(x):  # (batch, kv_heads, 1, n, g, width): every query head of a kv head reads it
        return x[:, :, : n * group_size].reshape(batch, kv_heads, 1, n, group_size, width).to(exact)

    last = q[:, :, group_size - 1 : n * group_size : group_size]
    last = last.reshape(batch, kv_heads, heads // kv_heads, n, 1, width).to(exact)
    keys, values = grouped(k), grouped(v)
    weights = ((last * keys).sum(-1, keepdim=True) / math.sqrt(width)).softmax(-2)
    return tuple((weights * x).sum(-2).reshape(batch, heads, n, width).to(k.dtype) for x in (keys, values))


def visible(length, n_cores, group_size, window_size):
    """The mask over columns [cores | raw tokens], in the form FlexAttention takes. The columns
    before n_cores that are no group's core are padding, which nobody sees."""

    def mask(batch, head, query, column):
        raw = column - n_cores
        is_core = raw < 0
        group = torch.where(is_core, column, raw // group_size)
        pooled = (group + 1) * group_size + window_size <= query + 1
        return torch.where(is_core, pooled, (raw <= query) & ~pooled)

    return mask


def concatenated(q, k, v, group_size, n_cores):
    """Keys and values of each query head: cores, padded to n_cores, and raw tokens."""
    share = q.shape[1] // k.shape[1]
    out = []
    for core, raw in zip(cores(q, k, v, group_size), (k, v)):
        core = F.pad(core, (0, 0, 0, n_cores - core.shape[2]))
        out.append(torch.cat([core, raw.repeat_interleave(share, 1)], 2))
    return out


@functools.lru_cache(maxsize=8)
def dense_mask(length, group_size, window_size, device):
    n = length // group_size
    query, column = (torch.arange(m, device=device) for m in (length, n + length))
    return visible(length, n, group_size, window_size)(0, 0, query[:, None], column[None])


@functools.lru_cache(maxsize=32)
def block_mask(length, group_size, window_size, device):
    """FlexAttention's mask. Which blocks hold something is found a strip of queries at a time,
    since the whole mask of a long text is too large."""
    n = -(-(length // group_size) // BLOCK) * BLOCK
    mask = visible(length, n, group_size, window_size)
    column = torch.arange(n + length, device=device)
    some, every = [], []
    for strip in torch.arange(length, device=device).split(8 * BLOCK):
        seen = mask(0, 0, strip[:, None], column[None]).view(-1, BLOCK, (n + length) // BLOCK, BLOCK)
        some.append(seen.any(3).any(1))
        every.append(seen.all(3).all(1))
    some, every = torch.cat(some), torch.cat(every)

    def indices(blocks):
        order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
        return blocks.sum(-1).to(torch.int32)[None, None], order.to(torch.int32)[None, None]

    return BlockMask.from_kv_blocks(
        *indices(some & ~every), *indices(every), BLOCK_SIZE=BLOCK, mask_mod=mask, seq_lengths=(length, n + length)
    )


def _flex(q, k, v, group_size, n_cores, mask):
    keys, values = concatenated(q, k, v, group_size, n_cores)
    return flex_attention(q, keys, values, block_mask=mask)


@functools.cache
def _compiled_flex():
    torch._dynamo.config.recompile_limit = 64  # each length and group size is compiled once
    return torch.compile(_flex, dynamic=False)


def attention(q, k, v, group_size, window_size, flex=None):
    """CCA-Attention of a whole sequence: (batch, heads, length, head_dim). Full causal attention
    where g = 1 or the window holds everything. flex: use FlexAttention (default: on a GPU, where
    the length is a multiple of 128), else scaled_dot_product_attention with a mask."""
    check(group_size, window_size)
    length = q.shape[2]
    if group_size == 1 or length <= window_size:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    if flex is None:
        flex = q.is_cuda and length % BLOCK == 0
    if flex:
        mask = block_mask(length, group_size, window_size, q.device)
        n_cores = mask.seq_lengths[1] - length
        return _compiled_flex()(q, k, v, group_size, n_cores, mask)
    mask = dense_mask(length, group_size, window_size, q.device)
    keys, values = concatenated(q, k, v, group_size, length // group_size)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
