#!/usr/bin/env python3
"""Makes the folders hf-text-* beside this file: small random models with tokenizers of their own.

    python3 tests/golden/models/make_text.py

needs numpy, torch, transformers (5 or newer), tokenizers and sentencepiece. The byte-level
tokenizers are built like those of Llama 3, Qwen2 and SmolLM and trained on ../bpe/text.txt; the
others are ../tokenizer/llama-like.model as transformers converts it, with the space in front of a
text made as the files of Llama 2 do it and as version 5 does it. Beside logits.bin (make.py) each
folder gets text.bin, little-endian:

    u32 n_texts, then for each
    u32 special (control tokens in the text count as such), size; bytes; u32 n; u16 ids[n]
    u32 n_prompt, u16 ids, u32 n_greedy, u16 ids: the first text with what the tokenizer puts in front, cut
    to n_prompt, and how transformers goes on, end tokens or not
"""
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaTokenizer, PreTrainedTokenizerFast,
                          Qwen2Config, Qwen2Tokenizer)
from transformers.convert_slow_tokenizer import generate_merges

HERE = Path(__file__).parent
TEXT = (HERE / "../bpe/text.txt").read_bytes().decode()
GOLDEN = (HERE / "../tokenizer/golden.txt").read_bytes().decode()
PROMPT, GREEDY = 24, 50

MODERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train(pre, normalizer=None, specials=(), size=600):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre
    if normalizer:
        tok.normalizer = normalizer
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(TEXT.split("\n")[::2], trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tok


def split(numbers):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(MODERN % numbers), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama3():
    tok = train(split("{1,3}"))
    state = json.loads(tok.to_str())
    state["model"]["ignore_merges"] = True
    tok = Tokenizer.from_str(json.dumps(state))
    begin = "<|begin_of_text|>"
    tok.add_special_tokens([begin, "<|end_of_text|>", "<|eot_id|>"])
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=[begin, "$A"], pair=[begin, "$A", begin + ":1", "$B:1"],
                                      special_tokens=[(begin, tok.token_to_id(begin))])])
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=begin, eos_token="<|end_of_text|>")


def qwen2():
    model = json.loads(train(split(""), normalizers.NFC()).to_str())["model"]
    tok = Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]])
    tok.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tok.add_tokens(["<tool_call>", "</tool_call>"])
    return tok


def smollm():
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tok = train(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)]), specials=names)
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=names[0], eos_token=names[0],
                                   unk_token=names[0])


def llama2(prepend):
    data = gzip.decompress((HERE / "../tokenizer/llama-like.model.gz").read_bytes())
    sp = SentencePieceProcessor(model_proto=data)
    vocab = {sp.id_to_piece(i): i for i in range(len(sp))}
    merges = generate_merges(vocab, {p: sp.get_score(i) for p, i in vocab.items()})
    tok = LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=prepend)
    if prepend:
        tok.backend_tokenizer.normalizer = normalizers.Sequence([
            normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tok.backend_tokenizer.pre_tokenizer = None
    return tok


def words(ids):
    return struct.pack(f"<I{len(ids)}H", len(ids), *ids)


def pack_text(tok, special, text):
    tok.backend_tokenizer.encode_special_tokens = not special
    ids = tok.backend_tokenizer.encode(text, add_special_tokens=False).ids
    data = text.encode()
    return struct.pack("<2I", special, len(data)) + data + words(ids)


def write_logits(folder, tokens, logits):
    rows = sorted(set(range(0, len(tokens), 17)) | set(range(len(tokens) - 6, len(tokens))))
    out = struct.pack("<i", len(tokens)) + np.asarray(tokens, "<i4").tobytes()
    out += struct.pack("<5i", 1, 0, 0, len(tokens), len(rows)) + np.asarray(rows, "<i4").tobytes()
    (folder / "logits.bin").write_bytes(out + logits[rows].astype("<f4").tobytes())


def make(name, seed, tok, config, sample, ends=None, old_merges=False):
    folder = HERE / f"hf-text-{name}"
    tok.save_pretrained(folder)
    if old_merges:  # as tokenizers before 0.20 wrote them
        path = folder / "tokenizer.json"
        state = json.loads(path.read_text())
        state["model"]["merges"] = [" ".join(m) for m in state["model"]["merges"]]
        path.write_text(json.dumps(state, ensure_ascii=False, indent=1))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            size = 0.15 if "embed" in key else 0.2  # large enough for a text that does not go in circles
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in key else size * torch.randn_like(p))
    model.generation_config.eos_token_id = ends or tok.eos_token_id
    model.save_pretrained(folder)

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    prompt = tok(GOLDEN)["input_ids"][:PROMPT]
    tokens = tok(GOLDEN)["input_ids"][:120]
    with torch.no_grad():
        write_logits(folder, tokens, model(torch.tensor(tokens)[None]).logits[0].numpy())
    model.generation_config.eos_token_id = None
    out = model.generate(torch.tensor(prompt)[None], do_sample=False, max_new_tokens=GREEDY, pad_token_id=0)
    greedy = out[0, len(prompt):].tolist()
    assert len(greedy) == GREEDY and len(set(greedy)) > 8, greedy
    texts = [(0, GOLDEN), (0, TEXT), (1, sample), (0, sample)]
    (folder / "text.bin").write_bytes(
        struct.pack("<I", len(texts)) + b"".join(pack_text(tok, *t) for t in texts) + words(prompt) + words(greedy))
    print(name, len(tok), "tokens", greedy[:8])


def main():
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 2048}
    tok = llama3()
    make("llama3", 41, tok, LlamaConfig(
        **shape, vocab_size=len(tok), bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id,
        rope_parameters={"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
        "<|begin_of_text|>Hello<|eot_id|> 1234567 <|end_of_text|>\n\n x",
        ends=tok.convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"]))
    tok = qwen2()
    make("qwen2", 52, tok, Qwen2Config(
        **shape, vocab_size=640, tie_word_embeddings=True, bos_token_id=None, eos_token_id=tok.eos_token_id),
        "<|im_start|>user\ne\u0301 12<|im_end|>\n<tool_call>{} </tool_call>x</tool_call>", old_merges=True,
        ends=tok.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    tok = smollm()
    make("smollm", 43, tok, LlamaConfig(
        **shape, vocab_size=len(tok), tie_word_embeddings=True, bos_token_id=0, eos_token_id=0),
        "<|im_start|>user\n12 3<|im_end|>\n<|endoftext|>")
    for name, prepend in ("llama2", True), ("metaspace", False):
        tok = llama2(prepend)
        make(name, 44 + prepend, tok, LlamaConfig(
            **shape, vocab_size=len(tok), bos_token_id=1, eos_token_id=2), "Hello </ s> <0x0A> ▁x", old_merges=prepend)


main()
