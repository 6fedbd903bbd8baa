"""CCA-Attention for training: differentiable, the definition of docs/MODEL.md.

    out = cca.attention(q, k, v, group_size=16, window_size=256)
    out = cca.attention(q, k, v, 16, 256, cca.Recall(sinks=16, budget=512))

q is (batch, heads, length, head_dim), k and v are (batch, kv_heads, length, head_dim), q and k
already rotated. With positions i from 1, groups of g tokens and a window of s:

    core t     = softmax of q[tg] . k / sqrt(head_dim) over the group (t-1)g+1 .. tg, applied to
                 its keys and values; one for each *query* head
    query i    sees cores 1 .. j(i), j(i) = max(0, floor((i - s) / g)), and raw tokens
                 j(i)g+1 .. i, in one softmax

All of it follows from one question: is group t seen as its core or as raw tokens by query i?
As its core where t*g + s <= i. Sinks and recall take groups out of these: the first ones for every
query, and for each tile of queries those that bounds on q . k promise most of; these are seen as raw
tokens again. The choice has no gradient; what is seen has.
"""
import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # queries and keys in a block of FlexAttention's sparse mask


@dataclass(frozen=True)
class Recall:
    """What is seen raw behind the window: the first `sinks` tokens, and `budget` that are recalled.

    tile: queries that choose together, None: as many as make 64 rows of query heads, the program's
    own default; cores: whether groups that are not recalled are seen as cores. The form published has
    neither sinks nor recall.
    """

    sinks: int = 0
    budget: int = 0
    tile: int | None = None
    cores: bool = True

    def queries(self, share):
        """Of a tile, where `share` query heads read a key/value head."""
        return self.tile or 1 << max(0, (64 // share).bit_length() - 1)


PUBLISHED = Recall()


def check(group_size, window_size, recall=PUBLISHED):
    if group_size < 1 or window_size < group_size or window_size % group_size:
        raise ValueError(f"the window {window_size} is no multiple of the group size {group_size}")
    for name, tokens in (("sinks", recall.sinks), ("budget", recall.budget)):
        if tokens < 0 or tokens % group_size:
            raise ValueError(f"the {name} {tokens} is no multiple of the group size {group_size}")


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


def poolable(query, group, group_size, window_size, recall):
    """Whether the group lies behind the query's window and is no sink: seen as its core unless recalled."""
    return ((group + 1) * group_size + window_size <= query + 1) & (group >= recall.sinks // group_size)


def bounds(k, group_size):
    """The smallest and the largest key of each complete group, elementwise: two of (batch, kv_heads, n, head_dim)."""
    n = k.shape[2] // group_size
    grouped = k[:, :, : n * group_size].unflatten(2, (n, group_size))
    return grouped.amin(3), grouped.amax(3)


@torch.no_grad()
def choose(q, k, group_size, window_size, recall):
    """Which groups each tile recalls: (batch, kv_heads, tiles, length // g) of bool.

    A group's score is the largest q . key that its bounds allow, the sum over dims of max(q low, q high)
    / sqrt(head_dim). Softmax over the groups that a query can recall gives weights, which are summed over
    the queries of a tile and the query heads of a key/value head; the largest are recalled, of equal ones
    the earlier. A strip of tiles at a time, since all scores of a long text are too large.
    """
    batch, heads, length, width = q.shape
    kv_heads, n = k.shape[1], length // group_size
    tile, count = recall.queries(heads // kv_heads), recall.budget // group_size
    exact, group, out = torch.promote_types(q.dtype, torch.float32), torch.arange(n, device=q.device), []
    sides = torch.cat(bounds(k, group_size), -1).to(exact)[:, :, None].transpose(-1, -2)
    for query in torch.arange(length, device=q.device).split(max(1, 1024 // tile) * tile):
        some = q[:, :, query].to(exact).unflatten(1, (kv_heads, -1))
        scores = torch.cat([some.clamp(max=0), some.clamp(min=0)], -1) @ sides / math.sqrt(width)
        can = poolable(query[:, None], group[None], group_size, window_size, recall)
        weights = scores.masked_fill(~can, -math.inf).softmax(-1).nan_to_num(0).sum(2)
        missing = -len(query) % tile
        weights = F.pad(weights, (0, 0, 0, missing)).unflatten(2, (-1, tile)).sum(3)
        can = F.pad(can, (0, 0, 0, missing)).unflatten(0, (-1, tile)).any(1)
        order = weights.masked_fill(~can, -1).argsort(dim=-1, descending=True, stable=True)[..., :count]
        out.append(torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, 1) & can)
    return torch.cat(out, 2)


def visible(length, n_cores, group_size, window_size, recall=PUBLISHED, chosen=None, share=1):
    """The mask over columns [cores | raw tokens], in the form FlexAttention takes. The columns
    before n_cores that are no group's core are padding, which nobody sees. chosen: of `choose`;
    share: query heads that read a key/value head."""
    last = length // group_size - 1

    def mask(batch, head, query, column):
        raw = column - n_cores
        is_core = raw < 0
        group = torch.where(is_core, column, raw // group_size)
        pooled = poolable(query, group, group_size, window_size, recall)
        if chosen is not None:
            pooled = pooled & ~chosen[batch, head // share, query // recall.queries(share), group.clamp(max=last)]
        return torch.where(is_core, pooled & recall.cores, (raw <= query) & ~pooled)

    return mask


def concatenated(q, k, v, group_size, n_cores):
    """Keys and values of each query head: cores, padded to n_cores, and raw tokens."""
    share = q.shape[1] // k.shape[1]
    out = []
    for core, raw in zip(cores(q, k, v, group_size), (k, v)):
        core = F.pad(core, (0, 0, 0, n_cores - core.shape[2]))
        out.append(torch.cat([core, raw.repeat_interleave(share, 1)], 2))
    return out


def every(*sizes, device):
    """Indices of each dimension, to be broadcast against each other."""
    return [torch.arange(n, device=device).view(-1, *[1] * (len(sizes) - 1 - i)) for i, n in enumerate(sizes)]


@functools.lru_cache(maxsize=8)
def dense_mask(length, group_size, window_size, device, recall=PUBLISHED):
    """The mask that does not depend on what is chosen: (length, length // g + length)."""
    n = length // group_size
    mask = visible(length, n, group_size, window_size, recall)
    return mask(0, 0, *every(length, n + length, device=device))


def blocks_of(mask, length, n_columns, batch, heads, device):
    """Which blocks hold something, and which nothing but visible pairs: two of (batch, heads, rows, columns).
    A strip of queries of one head at a time, since the whole mask of a long text is too large."""
    some, all_ = [], []
    for b in range(batch):
        for h in range(heads):
            for strip in torch.arange(length, device=device).split(8 * BLOCK):
                seen = mask(b, h, strip[:, None], torch.arange(n_columns, device=device)[None])
                seen = seen.view(-1, BLOCK, n_columns // BLOCK, BLOCK)
                some.append(seen.any(3).any(1))
                all_.append(seen.all(3).all(1))
    return [torch.cat(x).view(batch, heads, length // BLOCK, n_columns // BLOCK) for x in (some, all_)]


def made_of_blocks(mask, length, n_columns, some, all_):
    """FlexAttention's mask, of the blocks that `blocks_of` found."""

    def indices(blocks):
        order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
        return blocks.sum(-1).to(torch.int32), order.to(torch.int32)

    return BlockMask.from_kv_blocks(
        *indices(some & ~all_), *indices(all_), BLOCK_SIZE=BLOCK, mask_mod=mask, seq_lengths=(length, n_columns)
    )


def padded_cores(length, group_size):
    """Columns of cores, whole blocks of them."""
    return -(-(length // group_size) // BLOCK) * BLOCK


@functools.lru_cache(maxsize=32)
def fixed_blocks(length, group_size, window_size, device, recall=PUBLISHED):
    """The blocks of the mask that does not depend on what is chosen, of `blocks_of`."""
    n = padded_cores(length, group_size)
    mask = visible(length, n, group_size, window_size, recall)
    return blocks_of(mask, length, n + length, 1, 1, device)


@functools.lru_cache(maxsize=32)
def block_mask(length, group_size, window_size, device, recall=PUBLISHED):
    """FlexAttention's mask that does not depend on what is chosen."""
    n = padded_cores(length, group_size)
    mask = visible(length, n, group_size, window_size, recall)
    return made_of_blocks(mask, length, n + length, *fixed_blocks(length, group_size, window_size, device, recall))


def block_mask_of(chosen, length, group_size, window_size, recall, share):
    """FlexAttention's mask with what was chosen, of each batch item and query head. A chosen group brings the blocks
    of its raw tokens and takes its core out of a full block; a block may be looked into where nothing is left, or all."""
    n, tile = padded_cores(length, group_size), recall.queries(share)
    mask = visible(length, n, group_size, window_size, recall, chosen, share)
    groups = chosen.repeat_interleave(tile, 2)[:, :, :length].unflatten(2, (-1, BLOCK)).any(3)
    cores = F.pad(groups, (0, n - groups.shape[-1]))
    raw = groups.repeat_interleave(group_size, 3)
    columns = torch.cat([cores, F.pad(raw, (0, length - raw.shape[-1]))], 3).unflatten(3, (-1, BLOCK)).any(4)
    some, all_ = fixed_blocks(length, group_size, window_size, chosen.device, recall)
    is_core = torch.arange(columns.shape[-1], device=chosen.device) < n // BLOCK
    blocks = some | columns & ~is_core, all_ & ~(columns & is_core)
    return made_of_blocks(mask, length, n + length, *(x.repeat_interleave(share, 1) for x in blocks))


def _flex(q, k, v, group_size, n_cores, mask):
    keys, values = concatenated(q, k, v, group_size, n_cores)
    return flex_attention(q, keys, values, block_mask=mask)


@functools.cache
def _compiled_flex():
    torch._dynamo.config.recompile_limit = 64  # each length and group size is compiled once
    return torch.compile(_flex, dynamic=False)


def attention(q, k, v, group_size, window_size, recall=PUBLISHED, flex=None):
    """CCA-Attention of a whole sequence: (batch, heads, length, head_dim). Full causal attention
    where g = 1 or the window holds everything. recall: sinks and recalled tokens. flex: use
    FlexAttention (default: on a GPU, where the length is a multiple of 128), else
    scaled_dot_product_attention with a mask."""
    check(group_size, window_size, recall)
    length, share = q.shape[2], q.shape[1] // k.shape[1]
    if group_size == 1 or length <= window_size:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    if flex is None:
        flex = q.is_cuda and length % BLOCK == 0
    chosen = choose(q, k, group_size, window_size, recall) if recall.budget else None
    if flex:
        if chosen is None:
            mask = block_mask(length, group_size, window_size, q.device, recall)
        else:
            mask = block_mask_of(chosen, length, group_size, window_size, recall, share)
        return _compiled_flex()(q, k, v, group_size, padded_cores(length, group_size), mask)
    n = length // group_size
    if chosen is None:
        mask = dense_mask(length, group_size, window_size, q.device, recall)
    else:
        mask = visible(length, n, group_size, window_size, recall, chosen, share)(*every(*q.shape[:3], n + length, device=q.device))
    keys, values = concatenated(q, k, v, group_size, n)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
