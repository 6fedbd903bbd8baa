#!/usr/bin/env python3
"""Writes what tests/unit/test_tokenizer.c expects.

    pip install sentencepiece==0.2.3
    python tests/golden/tokenizer/make.py ../shared/data/llama2-tokenizer.model

Trains small SentencePiece models on golden.txt (NAME.model.gz) and writes the ids that the
sentencepiece package gives (NAME.ids) for

    each text of golden.txt on its own,
    whole   all texts, joined by newlines,
    long    some 300 KB of texts in pseudo-random order, joined in several ways,

the last two as number of ids and 64-bit FNV-1a of the ids (four bytes each, little-endian),
and all of them twice: with the model as it is, and without its dummy prefix. The model named
on the command line is not copied; only its ids are written, as llama2.ids.
"""

import gzip
import io
import pathlib
import re
import sys

import sentencepiece

HERE = pathlib.Path(__file__).parent
LONG_BYTES = 300_000
SEED = 20240229
# normalizer_spec { add_dummy_prefix: false }: a field at the end of a message overrules.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"

LLAMA = dict(
    model_type="bpe", vocab_size=640, normalization_rule_name="identity", byte_fallback=True,
    split_digits=True, remove_extra_whitespaces=False, character_coverage=0.99,
)  # fmt: skip
MODELS = {
    # As Llama 2's model was made.
    "llama-like": LLAMA,
    # Pieces of spaces alone, no dummy prefix, tokens of its own.
    "blanks": dict(
        LLAMA, allow_whitespace_only_pieces=True, add_dummy_prefix=False, pad_id=3,
        user_defined_symbols=["<sep>", "==", "=====", "\t"], control_symbols=["<ctl>", "<|eot_id|>"],
    ),
    # Pieces may have spaces inside.
    "phrases": dict(LLAMA, vocab_size=800, split_by_whitespace=False),
    # The trainer's defaults: NFKC, spaces trimmed, unknown characters stay unknown.
    "nfkc": dict(model_type="bpe", vocab_size=600, character_coverage=0.99),
    "unigram": dict(LLAMA, model_type="unigram", vocab_size=560),
}  # fmt: skip


def unescape(line):
    one = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "s": " ", "\\": "\\", "#": "#"}
    return re.sub(
        r"\\(?:u\{([0-9A-F]+)\}|(.))",
        lambda m: chr(int(m[1], 16)) if m[1] else one[m[2]],
        line,
    )


def read_texts():
    lines = (HERE / "golden.txt").read_bytes().decode().split("\n")
    return [unescape(line) for line in lines if line and not line.startswith("#")]


def long_text(texts):
    """The same as in test_tokenizer.c: a linear congruential generator picks."""
    joins = ["\n", " ", "", "\n\n", "  "]
    x, size, parts = SEED, 0, []
    while size < LONG_BYTES:
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        part = texts[(x >> 33) % len(texts)] + joins[(x >> 20) % len(joins)]
        parts.append(part)
        size += len(part.encode())
    return "".join(parts)


def fnv1a(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        for byte in i.to_bytes(4, "little"):
            h = ((h ^ byte) * 0x100000001B3) % 2**64
    return h


def train(name, options, texts):
    """Mostly on Latin script, so that the other characters stay unknown."""
    texts = [t for t in texts if sum(c > "\u024f" for c in t) * 5 < len(t)]
    sentences = [s for t in texts if "\0" not in t for s in t.split("\n") if s]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 2), model_writer=out, num_threads=1, minloglevel=1,
        **options,
    )  # fmt: skip
    (HERE / f"{name}.model.gz").write_bytes(gzip.compress(out.getvalue(), 9, mtime=0))
    return out.getvalue()


def write_ids(name, model, texts):
    start = sentencepiece.SentencePieceProcessor(model_proto=model)
    later = sentencepiece.SentencePieceProcessor(model_proto=model + NO_DUMMY_PREFIX)
    lines = [
        f"# Ids of golden.txt from the {name} model, one text a line, then the same without dummy",
        f"# prefix; written by make.py with sentencepiece {sentencepiece.__version__}, seed {SEED}.",
    ]
    for processor in start, later:
        lines += [" ".join(map(str, processor.encode(text))) for text in texts]
    # Unigram models add up floats over the whole text; over a long one the rounding settles ties
    # in a way of its own in each version of the library.
    long = [] if name == "unigram" else [("long", long_text(texts))]
    for label, text in [("whole", "\n".join(texts)), *long]:
        for processor in start, later:
            ids = processor.encode(text)
            lines.append(f"{label} {len(text.encode())} {len(ids)} {fnv1a(ids):016x}")
    data = "\n".join(lines) + "\n"
    (HERE / f"{name}.ids").write_text(data, newline="\n")
    print(f"{name}: {len(model)} bytes, {start.vocab_size()} pieces, ids {len(data)} bytes")


def main():
    texts = read_texts()
    print(f"{len(texts)} texts")
    for name, options in MODELS.items():
        write_ids(name, train(name, options, texts), texts)
    for path in sys.argv[1:]:
        write_ids("llama2", pathlib.Path(path).read_bytes(), texts)


if __name__ == "__main__":
    main()
