"""CCA-Attention against its definition. Run with: python3 -m pytest train

Recall is compared with the float64 reference beside the repository, where it is; else those tests are
skipped."""
import math

import numpy as np
import pytest
import torch

import cca
from oracle import reference

SHAPES = [  # length, heads, kv_heads, head_dim, g, s
    (40, 2, 2, 8, 4, 8),
    (67, 4, 2, 8, 4, 12),
    (100, 6, 2, 16, 16, 32),
    (33, 3, 1, 4, 2, 2),
    (50, 2, 1, 8, 1, 8),
    (30, 2, 2, 8, 8, 32),
]


RECALLS = [  # length, heads, kv_heads, head_dim, g, s, and sinks, budget, tile, cores
    (67, 4, 2, 8, 4, 12, cca.Recall(4)),
    (67, 4, 2, 8, 4, 12, cca.Recall(8, 0, None, False)),
    (90, 4, 2, 8, 4, 12, cca.Recall(4, 12, 8)),
    (90, 4, 4, 8, 4, 12, cca.Recall(0, 8, 1)),
    (133, 6, 2, 16, 8, 16, cca.Recall(8, 24, None, False)),
    (133, 8, 1, 16, 8, 16, cca.Recall(16, 24)),
    (150, 2, 2, 16, 16, 32, cca.Recall(16, 32, 64)),
    (64, 3, 1, 8, 1, 8, cca.Recall(1, 5, 4)),
    (70, 4, 2, 8, 4, 16, cca.Recall(4, 1000, 16)),
]


def random_qkv(length, heads, kv_heads, width, dtype=torch.float32, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, n, length, width, generator=generator, dtype=torch.float64).to(dtype)
        for n in (heads, kv_heads, kv_heads)
    ]


def defined(q, k, v, g, s):
    """One batch item in float64, the definition word for word; q, k, v are (heads, length, width)."""
    q, k, v = (x.double().numpy() for x in (q, k, v))
    heads, length, width = q.shape
    out = np.zeros_like(q)

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    for h in range(heads):
        kh, vh = (x[h // (heads // len(k))] for x in (k, v))
        pooled_k, pooled_v = [], []
        for t in range(1, length // g + 1):
            group = slice((t - 1) * g, t * g)
            w = softmax(kh[group] @ q[h, t * g - 1] / math.sqrt(width))
            pooled_k.append(w @ kh[group])
            pooled_v.append(w @ vh[group])
        for i in range(1, length + 1):
            j = max(0, (i - s) // g)
            keys = np.array(pooled_k[:j] + list(kh[j * g : i]))
            values = np.array(pooled_v[:j] + list(vh[j * g : i]))
            out[h, i - 1] = softmax(keys @ q[h, i - 1] / math.sqrt(width)) @ values
    return out


@pytest.mark.parametrize("length,heads,kv_heads,width,g,s", SHAPES)
def test_equals_the_definition(length, heads, kv_heads, width, g, s):
    q, k, v = random_qkv(length, heads, kv_heads, width)
    out = cca.attention(q, k, v, g, s)
    for b in range(2):
        np.testing.assert_allclose(out[b].numpy(), defined(q[b], k[b], v[b], g, s), atol=1e-5)


@pytest.mark.parametrize("length,heads,kv_heads,width,g,s,recall", RECALLS)
def test_recall_equals_the_reference(length, heads, kv_heads, width, g, s, recall):
    r = reference()
    q, k, v = random_qkv(length, heads, kv_heads, width, torch.float64)
    out, tile = cca.attention(q, k, v, g, s, recall), recall.queries(heads // kv_heads)
    rule = r.Recall(recall.sinks // g, recall.budget, tile, recall.cores)
    for b in range(2):
        own = [x[b].transpose(0, 1).numpy() for x in (q, k, v)]
        wanted = r.recall_attention(*own, g, s, rule).transpose(1, 0, 2)
        np.testing.assert_allclose(out[b].numpy(), wanted, atol=1e-12)
        if not recall.budget:
            continue
        chosen = cca.choose(q, k, g, s, recall)
        for kv in range(kv_heads):
            heads_of = slice(kv * heads // kv_heads, (kv + 1) * heads // kv_heads)
            groups = r.recalled_groups(own[0][:, heads_of], own[1][:, kv], g, s, rule)
            of_tiles = [groups[i : i + tile].any(0) for i in range(0, length, tile)]
            assert np.array_equal(chosen[b, kv].numpy(), of_tiles)


def test_of_equal_groups_the_earlier_is_recalled():
    q, k, v = random_qkv(80, 2, 1, 8)
    k[:, :, :] = k[:, :, :4].repeat(1, 1, 20, 1)  # all groups alike
    chosen = cca.choose(q, k, 4, 8, cca.Recall(4, 12, 8))
    assert chosen[0, 0, -1].nonzero().flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("tile", [1, 8, None])
def test_recall_of_everything_is_full_attention(tile):
    q, k, v = random_qkv(100, 4, 2, 8)
    full = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    for cores in (True, False):
        torch.testing.assert_close(cca.attention(q, k, v, 4, 8, cca.Recall(4, 100, tile, cores)), full)


def test_gradients_flow_through_what_is_seen():
    inputs = [x.requires_grad_() for x in random_qkv(33, 4, 2, 4, torch.float64, batch=1)]
    recall = cca.Recall(4, 8, 4)
    assert torch.autograd.gradcheck(lambda q, k, v: cca.attention(q, k, v, 4, 8, recall), inputs)
    assert not cca.choose(*inputs[:2], 4, 8, recall).requires_grad


@pytest.mark.parametrize("g,s", [(1, 4), (8, 64)])
def test_is_full_attention_where_nothing_is_pooled(g, s):
    q, k, v = random_qkv(48, 4, 2, 8)
    full = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(cca.attention(q, k, v, g, s), full)


def test_cores_of_one_token_are_the_token():
    q, k, v = random_qkv(48, 4, 2, 8, torch.float64)
    keys, values = cca.concatenated(q, k, v, 1, 48)
    out = torch.nn.functional.scaled_dot_product_attention(q, keys, values, cca.dense_mask(48, 1, 8, q.device))
    torch.testing.assert_close(out, cca.attention(q, k, v, 1, 8))


@pytest.mark.parametrize("length,g,s", [(21, 4, 8), (16, 2, 2), (19, 8, 8)])
def test_gradients(length, g, s):
    inputs = [x.requires_grad_() for x in random_qkv(length, 4, 2, 4, torch.float64, batch=1)]
    assert torch.autograd.gradcheck(lambda q, k, v: cca.attention(q, k, v, g, s), inputs)


@pytest.mark.parametrize("g,s", [(4, 3), (4, 2), (0, 4)])
def test_refuses_a_window_that_is_no_multiple(g, s):
    with pytest.raises(ValueError, match=f"window {s}"):
        cca.attention(*random_qkv(8, 2, 2, 4), g, s)


@pytest.mark.parametrize("recall", [cca.Recall(5), cca.Recall(4, 6), cca.Recall(-4)])
def test_refuses_sinks_and_budgets_that_are_no_multiples(recall):
    with pytest.raises(ValueError, match="is no multiple of the group size 4"):
        cca.attention(*random_qkv(32, 2, 2, 4), 4, 8, recall)


def kinds(mask, batch, head):
    """Of each block of a FlexAttention's mask: 2 full, 1 to be looked into, 0 left out."""
    out = torch.zeros(mask.seq_lengths[0] // 128, mask.seq_lengths[1] // 128, dtype=torch.int)
    for kind, (count, index) in enumerate([(mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices)], 1):
        for row in range(len(out)):
            out[row, index[batch, head, row, : count[batch, head, row]].long()] += kind
    return out


def filled(dense):
    """The same of a mask of pairs."""
    blocks = dense.unflatten(0, (-1, 128)).unflatten(2, (-1, 128))
    return blocks.any(3).any(1).int() + blocks.all(3).all(1).int()


@pytest.mark.parametrize("length,g,s", [(512, 4, 64), (1024, 16, 256), (640, 8, 128)])
def test_block_mask_covers_the_mask(length, g, s):
    mask = cca.block_mask(length, g, s, torch.device("cpu"))
    n = mask.seq_lengths[1] - length
    query, column = torch.arange(length), torch.arange(n + length)
    dense = mask.mask_mod(0, 0, query[:, None], column[None])
    exact = cca.dense_mask(length, g, s, torch.device("cpu"))
    assert torch.equal(dense[:, n:], exact[:, length // g :]) and torch.equal(dense[:, : length // g], exact[:, : length // g])
    assert not dense[:, length // g : n].any()
    assert torch.equal(kinds(mask, 0, 0), filled(dense))


def test_flex_attention_equals_masked_attention():
    q, k, v = random_qkv(512, 6, 2, 16)
    exact = cca.attention(q, k, v, 16, 64, flex=False)
    mask = cca.block_mask(512, 16, 64, q.device)
    flex = cca._flex(q, k, v, 16, mask.seq_lengths[1] - 512, mask)
    torch.testing.assert_close(flex, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads,kv_heads", [(6, 2), (2, 2)])
@pytest.mark.parametrize("recall", [cca.Recall(16, 64), cca.Recall(0, 32, 8, False)])
def test_flex_attention_with_recall(heads, kv_heads, recall):
    """The blocks that nothing is in differ from head to head, and leave out nothing that is seen."""
    q, k, v = random_qkv(640, heads, kv_heads, 16)
    exact = cca.attention(q, k, v, 16, 64, recall, flex=False)
    chosen = cca.choose(q, k, 16, 64, recall)
    mask = cca.block_mask_of(chosen, 640, 16, 64, recall, heads // kv_heads)
    assert mask.kv_num_blocks.shape == (2, heads, 5)
    flex = cca._flex(q, k, v, 16, mask.seq_lengths[1] - 640, mask)
    torch.testing.assert_close(flex, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recall", [cca.Recall(16, 64), cca.Recall(0, 32, 8, False), cca.Recall(16, 48, 24)])
def test_blocks_with_recall_cover_what_is_seen(recall):
    """None is left out where something is seen, none is full where something is not, and most are as tight as can be."""
    q, k, _ = random_qkv(1152, 6, 2, 16)
    chosen = cca.choose(q, k, 16, 64, recall)
    mask, loose = cca.block_mask_of(chosen, 1152, 16, 64, recall, 3), 0
    for b in range(2):
        for h in range(6):
            seen = mask.mask_mod(b, h, torch.arange(1152)[:, None], torch.arange(mask.seq_lengths[1])[None])
            found, exact = kinds(mask, b, h), filled(seen)
            assert not ((found == 0) & (exact > 0)).any() and not ((found == 2) & (exact < 2)).any()
            loose += (found != exact).sum().item()
    assert loose < 0.02 * 12 * found.numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recall", [cca.PUBLISHED, cca.Recall(16, 128)])
@pytest.mark.parametrize("g,s", [(4, 64), (16, 256)])
def test_compiled_flex_attention_and_its_gradients_on_the_gpu(g, s, recall):
    exact = [x.cuda().requires_grad_() for x in random_qkv(2048, 6, 2, 64)]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    wanted = cca.attention(*exact, g, s, recall, flex=False)
    out = cca.attention(*half, g, s, recall)
    weight = torch.randn_like(wanted)
    (wanted * weight).sum().backward()
    (out.float() * weight).sum().backward()
    for a, b in [(out, wanted), *((x.grad, y.grad) for x, y in zip(half, exact))]:
        assert (a.float() - b).norm() / b.norm() < 1e-2
