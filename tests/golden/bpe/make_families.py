#!/usr/bin/env python3
"""Makes families.json: ways with texts of some thirty tokenizers, with the ids of Hugging Face's tokenizers.

    pip install tokenizers==0.23.3
    python3 tests/golden/bpe/make_families.py [N FILE]

N texts in place of the usual number go into FILE, which test_bpe_families takes as its argument.

All have one of two vocabularies, which were trained on text.txt without cutting it, so that each cut shows: one
of bytes, one of characters with byte_fallback. "families" lists for each what is to stand in tokenizer.ggml.pre,
the parts of its tokenizer.json, and the CRC-32 of the ids (u32, little-endian) of text.txt, of
../tokenizer/golden.txt, and of each of "texts": without and with special tokens where there are any.
"""
import json
import random
import struct
import sys
import zlib
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers as N, pre_tokenizers as P, trainers

HERE = Path(__file__).parent
TEXT = (HERE / "text.txt").read_bytes().decode()
GOLDEN = (HERE / "../tokenizer/golden.txt").read_bytes().decode()

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def modern(numbers):
    return CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers + r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST


def cased(suffix, numbers):
    return (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{suffix}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{suffix}|"
            + numbers + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST)


DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
             r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")


def split(pattern, behavior="isolated", invert=False):
    return P.Split(Regex(pattern), behavior, invert)


def letters(space=False, regex=False):
    return P.ByteLevel(add_prefix_space=space, use_regex=regex)


def cuts(*parts):
    return P.Sequence([*parts, letters()])


GPT2 = letters(regex=True)
ESCAPE = N.Replace(" ", "▁")

# name: tokenizer.ggml.pre, pre-tokenizer, normalizer, ignore_merges
BYTES = {
    "llama3": ("llama-bpe", cuts(split(modern(r"\p{N}{1,3}"))), None, True),
    "olmo2": ("dbrx", cuts(split(modern(r"\p{N}{1,3}"))), None, False),
    "qwen2": ("qwen2", cuts(split(modern(r"\p{N}"))), N.NFC(), False),
    "hunyuan": ("hunyuan", cuts(split(modern(r"\p{N}"))), None, False),
    "qwen35": ("qwen35", cuts(split(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
                                    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + REST)), None, False),
    "gpt2": ("gpt-2", GPT2, None, False),
    "olmo": ("olmo", GPT2, N.NFC(), False),
    "gpt2-space": ("cca", letters(True, True), None, False),
    "smollm": ("smollm", P.Sequence([P.Digits(True), GPT2]), None, False),
    "command-r": ("command-r", P.Sequence([P.Digits(True), GPT2]), N.NFC(), False),
    "tekken": ("tekken", cuts(split(cased("", r"\p{N}"))), None, True),
    "gpt-4o": ("gpt-4o", cuts(split(cased(CONTRACTION + "?", r"\p{N}{1,3}"))), None, False),
    "deepseek-coder": ("deepseek-coder", cuts(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                                              split("[一-龥ࠀ-一가-퟿]+"), P.Digits(True)), N.Sequence([]), False),
    "deepseek-v3": ("deepseek-v3", cuts(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3)),
                    N.Sequence([]), False),
    "falcon": ("falcon", P.Sequence([P.Punctuation("contiguous"), GPT2, P.Digits(False), split("[0-9][0-9][0-9]")]),
               None, False),
    "falcon, letters last": ("cca", P.Sequence([P.Punctuation("contiguous"), P.Digits(False),
                                                split("[0-9][0-9][0-9]"), GPT2]), None, False),
    "aya": ("tiny_aya", cuts(split(r"\d{1,3}(?=(?:\d{3})*\b)"), split(cased(CONTRACTION + "?", r"\p{N}{1,3}"))),
            None, False),
    "bloom": ("poro-chat", cuts(split(r" ?[^(\s|[.,!?…。，、।۔،])]+")), None, False),
    "superbpe": ("cca", cuts(split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))")), None, False),
    "nfkc, lowercase": ("cca", cuts(P.Punctuation("isolated"), split(r"\p{Han}+", "contiguous"), P.Digits(True)),
                        N.Sequence([N.NFKC(), N.Lowercase()]), False),
    "strip, nfd": ("cca", cuts(P.Whitespace()), N.Sequence([N.Strip(), N.Replace(Regex(r"\s+"), " "), N.NFD()]), False),
    "merged": ("cca", cuts(split(r"\s+", "merged_with_next"), split(r"[,.;]", "merged_with_previous")), N.NFKD(), False),
    "inverted": ("cca", cuts(split(r"\w+\b|\d+", "merged_with_previous", True), P.Punctuation("merged_with_next")),
                 N.Replace("e", "EE"), False),
    "removed": ("cca", cuts(split(r"[\p{L}\p{M}]+", "removed", True)), N.Prepend("x"), True),
    "white space": ("cca", cuts(P.WhitespaceSplit(), split("a.", "contiguous")), N.Strip(True, False), False),
}
PLAIN = {
    "prepend": ("cca", None, N.Sequence([N.Prepend("▁"), ESCAPE]), False),
    "metaspace": ("cca", P.Metaspace("▁", "first", True), None, False),
    "metaspace, always": ("cca", P.Metaspace("▁", "always", False), N.NFKC(), True),
    "gemma": ("cca", P.Split(" ", "merged_with_previous"), ESCAPE, False),
}
ADDED = [
    dict(content="<l>", lstrip=True), dict(content="<r>", rstrip=True),
    dict(content="<lr>", lstrip=True, rstrip=True, normalized=True), dict(content="honk", single_word=True),
    dict(content="HOnk", single_word=True, normalized=True), dict(content="<Café>", normalized=True),
    dict(content="<cafe\u0301>"), dict(content="<S>", special=True),
    dict(content="<SN>", special=True, normalized=True), dict(content="<SL>", special=True, lstrip=True, rstrip=True),
    dict(content="a b", normalized=True), dict(content="ﬁn", normalized=True), dict(content="<l><r>"),
    dict(content="  "),
]
WITH_ADDED = ["gpt2-space", "qwen2", "nfkc, lowercase", "removed", "metaspace", "gemma"]

POOLS = ["abcdefghijklmnop", "ABCXYZÀÉǅß", "0123456789", "  \t\n\r ", "'s't're'll'S'D",
         "!?.,;:-_()[]{}#$%&*+/<=>@^`|~\\\"", "漢字仮名カナひら", "한국어가각", "éèüñÅ", "\u0301\u0323\u0308\u0327",
         "٠١٢३४½²Ⅷ⑨", "🙂👩‍💻🏽", "\u200d\u200c\u00a0\u3000\u2028\u180e\ufeff", "ſKİΩﬁﷺ㎏ｶﾞ", "！，。、“”…—"]
WORDS = [" don't", "I'LL", " we've", "\n\n  ", "  x", "  \n", "123456", "<0x41>", " ▁", "▁"]
AROUND = [" ", "  ", "\n", "\t ", "\u00a0", "\u3000", "x", "é", "_", "9", "①", ".", " a", "Ⓐ", "\u200d", "\u0301"]


def random_text(rng):
    out = []
    for _ in range(rng.randint(1, 40)):
        kind = rng.random()
        if kind < 0.68:
            pool = rng.choice(POOLS)
            out.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 5))))
        elif kind < 0.76:
            out.append(rng.choice(WORDS))
        elif kind < 0.84:
            out.append(rng.choice(ADDED)["content"] + rng.choice(AROUND))
        else:
            code = rng.randint(0, rng.choice([0x2fff, 0xffff, 0x1ffff, 0x10ffff]))
            out.append("" if 0xd800 <= code < 0xe000 else chr(code))
    return "".join(out)


def vocabulary(plain):
    tok = Tokenizer(models.BPE(byte_fallback=plain, unk_token="<unk>" if plain else None))
    lines = [line[i:i + 40] for line in TEXT.split("\n")[::2] for i in range(0, len(line), 40)]
    names = ["<unk>", "<s>"] + [f"<0x{b:02X}>" for b in range(256)] if plain else []
    if plain:
        tok.normalizer = ESCAPE
    else:
        tok.pre_tokenizer = letters()
    tok.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=900 if plain else 700, limit_alphabet=300, special_tokens=names, show_progress=False, max_token_length=10,
        initial_alphabet=[] if plain else sorted(P.ByteLevel.alphabet())))
    model = json.loads(tok.to_str())["model"]
    model["merges"] = [m for i, m in enumerate(model["merges"]) if i % 7 != 6]  # ignore_merges shows, too
    return model


def main():
    rng = random.Random(7)
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    texts = [random_text(rng) for _ in range(n)]
    out = {"models": {"bytes": vocabulary(False), "plain": vocabulary(True)}, "texts": texts, "families": []}
    for kind, families in ("bytes", BYTES), ("plain", PLAIN):
        for name, (known, pre, normalizer, ignore) in families.items():
            tok = Tokenizer(models.BPE())
            if pre:
                tok.pre_tokenizer = pre
            if normalizer:
                tok.normalizer = normalizer
            state = json.loads(tok.to_str())
            state["model"] = {**out["models"][kind], "ignore_merges": ignore}
            first = len(state["model"]["vocab"])
            state["added_tokens"] = [
                dict(dict(id=first + i, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False), **t)
                for i, t in enumerate(ADDED if name in WITH_ADDED else [])]
            tok = Tokenizer.from_str(json.dumps(state))
            sums = []
            for special in (False, True) if name in WITH_ADDED else (False,):
                tok.encode_special_tokens = not special
                for text in [TEXT, GOLDEN, *texts]:
                    ids = tok.encode(text, add_special_tokens=False).ids
                    sums.append(zlib.crc32(struct.pack(f"<{len(ids)}I", *ids)))
            out["families"].append({
                "name": name, "pre": known, "model": kind, "ignore_merges": ignore,
                "normalizer": state["normalizer"], "pre_tokenizer": state["pre_tokenizer"],
                "added_tokens": state["added_tokens"], "sums": sums})
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "families.json"
    path.write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n", newline="\n")
    print(len(out["families"]), "families,", len(texts), "texts")


main()
