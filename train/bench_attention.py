"""PyTorch's attention and this GPU's ceilings, the yardsticks of tests/gpu.sh.

    python3 train/bench_attention.py [LENGTH ...]     # 32768 131072

CUDA events, 3 warm-up runs, median of 20 (5 where a run takes long), random data."""

import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

import cca

HEADS, WIDTH, GROUP, WINDOW = 32, 128, 16, 1024


def milliseconds(run, repeats=20):
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def report(name, length, ms, pairs):
    rate = 4 * WIDTH * HEADS * pairs / ms / 1e9
    print(f"{name:22} {length:7} tokens: {ms:9.3f} ms, {rate:6.1f} TFLOP/s of visible pairs", flush=True)


def ceilings():
    a, b = random(8192, 8192), random(8192, 8192)
    ms = milliseconds(lambda: a @ b)
    print(f"{'product 8192^3':22} {ms:.3f} ms, {2 * 8192**3 / ms / 1e9:.1f} TFLOP/s")
    x = torch.randn(1 << 30, device="cuda")
    y = torch.empty_like(x)
    ms = milliseconds(lambda: y.copy_(x))
    print(f"{'copy of 4 GiB':22} {ms:.3f} ms, {2 * 4 * x.numel() / ms / 1e9:.2f} TB/s", flush=True)


def full(length):
    q, k, v = (random(1, HEADS, length, WIDTH) for _ in range(3))
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                ms = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), 5)
            report(f"full, SDPA {name}", length, ms, length * (length + 1) // 2)
        except RuntimeError as error:
            print(f"full, SDPA {name}: {str(error).splitlines()[0]}")


def pairs_of_cca(length):
    groups = [max(0, (i + 1 - WINDOW) // GROUP) for i in range(length)]
    return sum(i + 1 - g * GROUP + g for i, g in enumerate(groups))


def flex(length):
    """FlexAttention over raw keys and cores side by side, without the time to make the cores."""
    q, k, v = (random(1, HEADS, length, WIDTH) for _ in range(3))
    mask = cca.block_mask(length, GROUP, WINDOW, q.device)
    n_cores = mask.seq_lengths[1] - length
    keys, values = cca.concatenated(q, k, v, GROUP, n_cores)
    compiled = torch.compile(flex_attention, dynamic=False)
    ms = milliseconds(lambda: compiled(q, keys, values, block_mask=mask), 10)
    report("CCA, FlexAttention", length, ms, pairs_of_cca(length))


def main():
    lengths = [int(x) for x in sys.argv[1:]] or [32768, 131072]
    ceilings()
    for length in lengths:
        full(length)
        flex(length)


if __name__ == "__main__":
    main()
