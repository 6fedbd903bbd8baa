"""Makes blocks.bin and tiny.gguf, the golden files of the types that run and that nothing here makes.

    python3 tests/golden/kquants/make.py        (needs numpy and gguf)

blocks.bin holds for each type: its id and the number of values n (uint32), the bytes of the
blocks, and n float32 that the gguf package makes of them. Bits are random, f16 scales are of a
sensible size. tiny.gguf is a small model without a tokenizer of mixed types.
"""

from pathlib import Path

import gguf
import numpy as np

FOLDER = Path(__file__).parent
TYPES = ["Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
         "IQ4_XS"]
N = 1024
# Where the f16 scales of a block stand, counted in bytes.
SCALES = {"Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
random = np.random.default_rng(3)


def quant(name):
    return gguf.GGMLQuantizationType[name]


def random_blocks(name, n, scale):
    """n values of random bits whose blocks have f16 scales up to the given one."""
    block, size = gguf.GGML_QUANT_SIZES[quant(name)]
    bits = random.integers(0, 256, (n // block, size), dtype=np.uint8)
    for at in SCALES[name]:
        scales = random.uniform(-scale, scale, n // block).astype(np.float16)
        bits[:, at:at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return bits


def make_blocks():
    with open(FOLDER / "blocks.bin", "wb") as file:
        for name in TYPES:
            bits = random_blocks(name, N, 0.1)
            values = gguf.quants.dequantize(bits, quant(name)).astype(np.float32)
            assert values.size == N and np.isfinite(values).all()
            file.write(np.array([quant(name), N], np.uint32).tobytes())
            file.write(bits.tobytes() + values.tobytes())


def make_model():
    dim, hidden, heads, vocab = 32, 256, 2, 24
    writer = gguf.GGUFWriter(FOLDER / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(dim)
    writer.add_block_count(2)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(dim // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")

    def matrix(name, rows, cols, kind):
        block, size = gguf.GGML_QUANT_SIZES[quant(kind)]
        bits = random_blocks(kind, rows * cols, 0.004)
        writer.add_tensor(name, bits.reshape(rows, cols // block * size), raw_dtype=quant(kind))

    def vector(name):
        writer.add_tensor(name, random.uniform(0.5, 1.5, dim).astype(np.float32))

    matrix("token_embd.weight", vocab, dim, "Q5_1")
    for layer, down in enumerate(["Q4_K", "Q6_K"]):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight")
        matrix(block + "attn_q.weight", dim, dim, "Q4_1")
        matrix(block + "attn_k.weight", dim, dim, "Q5_0")
        matrix(block + "attn_v.weight", dim, dim, "Q5_1")
        matrix(block + "attn_output.weight", dim, dim, "Q4_1")
        vector(block + "ffn_norm.weight")
        matrix(block + "ffn_gate.weight", hidden, dim, "Q5_0")
        matrix(block + "ffn_up.weight", hidden, dim, "Q5_1")
        matrix(block + "ffn_down.weight", dim, hidden, down)
    vector("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


make_blocks()
make_model()
