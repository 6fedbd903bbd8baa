#!/usr/bin/env python3
"""Makes the tokenizers of this folder and the ids that test_bpe.c expects.

    python3 tests/golden/bpe/make.py

needs tokenizers (0.23). Three small byte-level BPE tokenizers, built like those of Llama 3,
Qwen2 and SmolLM, are trained on every second line of text.txt; then text.txt and the golden text
of the other tokenizers are encoded as a whole, and text.txt line by line. Training is
deterministic. Each file is little-endian:

    u32 n_tokens, then for each u8 apart, u16 size, bytes
    u32 n_merges, then for each u16 size, bytes
    u32 n_texts, then for each u32 from, size, n; u16 ids[n], offsets[n]

where from counts the bytes of text.txt with ../tokenizer/golden.txt behind it. An offset is that of the character in which a token begins; the library does not say more.
"""
import json
import struct
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).parent
GOLDEN = (HERE / "../tokenizer/golden.txt").read_bytes().decode()
TEXT = (HERE / "text.txt").read_bytes().decode()
LINES = [line + "\n" for line in TEXT.split("\n")]
LINES[-1] = LINES[-1][:-1]

MODERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(numbers):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(MODERN % numbers), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


DIGITS = pre_tokenizers.Sequence([
    pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])

# name: pre-tokenizer, normaliser, ignore_merges, size, control tokens behind the others
KINDS = {
    "llama3": (split("{1,3}"), None, True, 900, ["<|begin_of_text|>", "<|eot_id|>"]),
    "qwen2": (split(""), normalizers.NFC(), False, 700, ["<|endoftext|>", "<|im_start|>"]),
    "smollm": (DIGITS, None, False, 800, ["<|im_start|>", "<｜outside▁the▁alphabet｜>"]),
}


def train(pre, normalizer, ignore_merges, size):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre
    if normalizer:
        tok.normalizer = normalizer
    tok.train_from_iterator(LINES[::2], trainers.BpeTrainer(
        vocab_size=size, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    state = json.loads(tok.to_str())
    merges = state["model"]["merges"]
    if ignore_merges:  # words that are tokens, but that no merges lead to
        merges = [m for i, m in enumerate(merges) if i % 5 != 4]
    state["model"].update(merges=merges, ignore_merges=ignore_merges)
    return Tokenizer.from_str(json.dumps(state)), merges


def pack_string(text):
    data = text.encode()
    return struct.pack("<H", len(data)) + data


def pack_text(tok, start, text):
    encoding = tok.encode(text, add_special_tokens=False)
    byte_of = [0]
    for char in text:
        byte_of.append(byte_of[-1] + len(char.encode()))
    offsets = [byte_of[begin] for begin, _ in encoding.offsets]
    n = len(encoding.ids)
    return struct.pack(f"<3I{n}H{n}H", start, byte_of[-1], n, *encoding.ids, *offsets)


def main():
    for name, (pre, normalizer, ignore_merges, size, controls) in KINDS.items():
        tok, merges = train(pre, normalizer, ignore_merges, size)
        vocab = sorted(tok.get_vocab().items(), key=lambda item: item[1])
        assert [i for _, i in vocab] == list(range(len(vocab)))
        out = struct.pack("<I", len(vocab) + len(controls))
        out += b"".join(b"\0" + pack_string(text) for text, _ in vocab)
        out += b"".join(b"\1" + pack_string(text) for text in controls)
        out += struct.pack("<I", len(merges))
        out += b"".join(pack_string(" ".join(merge)) for merge in merges)
        out += struct.pack("<I", 2 + len(LINES)) + pack_text(tok, 0, TEXT)
        out += pack_text(tok, len(TEXT.encode()), GOLDEN)
        start = 0
        for line in LINES:
            out += pack_text(tok, start, line)
            start += len(line.encode())
        (HERE / f"{name}.bin").write_bytes(out)
        print(name, len(vocab), "tokens", len(merges), "merges", len(out), "bytes")


main()
