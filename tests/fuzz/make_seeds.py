#!/usr/bin/env python3
"""Writes tests/fuzz/seeds: small inputs, most of them sound, from which the fuzz targets start."""
import gzip
import json
import struct
import zlib
from pathlib import Path

ROOT = Path(__file__).parent / "seeds"
MARK = b"\n%%\n"
SPACE = "\u2581"


def write(target, name, data):
    path = ROOT / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# --- GGUF: a value is (type, value), an array (9, type, values)

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def text(s):
    data = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, x):
    return text(x) if kind == 8 else struct.pack("<" + NUMBERS[kind], x)


def gguf(keys, tensors, version=3):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, (kind, *rest) in keys.items():
        out += text(key) + struct.pack("<I", kind)
        if kind == 9:
            element, values = rest
            out += struct.pack("<IQ", element, len(values)) + b"".join(value(element, v) for v in values)
        else:
            out += value(kind, rest[0])
    at, data = 0, b""
    for name, (dims, kind, n_bytes) in tensors.items():
        out += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
        data += bytes(i % 251 for i in range(n_bytes)) + bytes(-n_bytes % 32)
        at = len(data)
    return out + bytes(-len(out) % 32) + data


def model_keys(arch="llama", d=8):
    names = {"block_count": 1, "embedding_length": d, "feed_forward_length": d, "context_length": 64,
             "attention.head_count": 2, "attention.head_count_kv": 1, "vocab_size": 16}
    keys = {"general.architecture": (8, arch), "general.alignment": (4, 32)}
    keys |= {f"{arch}.{name}": (4, n) for name, n in names.items()}
    keys[f"{arch}.attention.layer_norm_rms_epsilon"] = (6, 1e-5)
    return keys


def model_tensors(d=8, kind=0, row_bytes=32):
    """Rows of d values, of a type of which they take row_bytes; vectors are always F32."""
    rows = {"attn_q": d, "attn_k": d // 2, "attn_v": d // 2, "attn_output": d,
            "ffn_gate": d, "ffn_up": d, "ffn_down": d}
    tensors = {"token_embd.weight": ((d, 16), kind, 16 * row_bytes),
               "output_norm.weight": ((d,), 0, 4 * d)}
    for name, n in rows.items():
        tensors[f"blk.0.{name}.weight"] = ((d, n), kind, n * row_bytes)
    for name in ("attn_norm", "ffn_norm"):
        tensors[f"blk.0.{name}.weight"] = ((d,), 0, 4 * d)
    return tensors


PIECES = ["<unk>", "<s>", "</s>", SPACE, "a", "b", SPACE + "a", "ab", "lo", SPACE + "world", "1", "\u00e9"]


def vocabulary():
    kinds = [2, 3, 3] + [1] * (len(PIECES) - 3)
    return {"tokenizer.ggml.model": (8, "llama"), "tokenizer.ggml.tokens": (9, 8, PIECES),
            "tokenizer.ggml.scores": (9, 6, [-float(i) for i in range(len(PIECES))]),
            "tokenizer.ggml.token_type": (9, 5, kinds), "tokenizer.ggml.bos_token_id": (4, 1),
            "tokenizer.ggml.eos_token_id": (4, 2), "tokenizer.ggml.add_bos_token": (7, True),
            "tokenizer.ggml.add_space_prefix": (7, True), "cca.end_token_ids": (9, 5, [2, 1])}


def alphabet():
    """GPT-2's characters of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + i) for i in range(256))
    return [chr(b) if b in plain else next(others) for b in range(256)]


MERGES = ["\u0120 w", "o r", "l d", "or ld", "\u0120w orld", "l l", "1 2"]


def bpe_vocabulary(pre):
    tokens = alphabet() + [m.replace(" ", "") for m in MERGES] + ["<|end|>"]
    kinds = [1] * (len(tokens) - 1) + [3]
    return {"tokenizer.ggml.model": (8, "gpt2"), "tokenizer.ggml.pre": (8, pre),
            "tokenizer.ggml.tokens": (9, 8, tokens), "tokenizer.ggml.token_type": (9, 5, kinds),
            "tokenizer.ggml.merges": (9, 8, MERGES),
            "tokenizer.ggml.eos_token_id": (4, len(tokens) - 1)}


def added_vocabulary():
    """Tokens of fuzz_gguf.c's text that take white space along, or are no part of a word."""
    keys = bpe_vocabulary("llama-bpe")
    more = [" <s>", "<s>", "world", "123", "\u00e9", "lo,", "</s>"]
    tokens, kinds = keys["tokenizer.ggml.tokens"][2] + more, keys["tokenizer.ggml.token_type"][2] + [4, 3, 4, 4, 4, 4, 3]
    first = len(tokens) - len(more)
    keys |= {"tokenizer.ggml.tokens": (9, 8, tokens), "tokenizer.ggml.token_type": (9, 5, kinds)}
    for i, flag in enumerate(("lstrip", "rstrip", "single_word", "normalized")):
        keys[f"cca.{flag}_token_ids"] = (9, 4, [first + i, first + i + 1, first + i + 3])
    return keys


def gguf_seeds():
    write("gguf", "empty", gguf({}, {}))
    write("gguf", "model", gguf(model_keys(), model_tensors()))
    write("gguf", "qwen2", gguf(model_keys("qwen2"), model_tensors(), version=2))
    write("gguf", "vocabulary", gguf(model_keys() | vocabulary(), {}))
    write("gguf", "original", gguf({"cca.tokenizer.sentencepiece": (9, 0, spm_model(True))}, {}))
    for pre in ("llama-bpe", "qwen2", "smollm"):
        write("gguf", "bpe-" + pre, gguf(bpe_vocabulary(pre), {}))
    for target in ("gguf", "source"):
        write(target, "q8_0", gguf(model_keys(d=32), model_tensors(32, 8, 34)))
        write(target, "q5_1", gguf(model_keys(d=32), model_tensors(32, 7, 24)))
    write("source", "f32", gguf(model_keys() | vocabulary(), model_tensors()))
    every = {f"key.{kind}": (kind, 1) for kind in NUMBERS} | {"key.8": (8, "text")}
    every |= {f"array.{kind}": (9, kind, [1, 0, 1]) for kind in NUMBERS}
    every["array.8"] = (9, 8, ["one", "", "three"])
    write("gguf", "types", gguf(every, {"t": ((32, 2), 8, 68), "u": ((32, 1, 1, 1), 2, 18)}))
    yarn = {"llama.rope.scaling.type": (8, "yarn"), "llama.rope.scaling.factor": (6, 4.0),
            "llama.rope.scaling.original_context_length": (4, 16), "cca.group_size": (4, 4),
            "cca.window_size": (4, 16), "cca.tuned": (7, True), "llama.rope.freq_base": (6, 5e5)}
    huge = yarn | {"llama.rope.scaling.factor": (6, -1e31)}
    write("gguf", "negative-factor", gguf(model_keys() | huge, model_tensors()))
    write("gguf", "added", gguf(added_vocabulary(), {}))
    sound = {"cca.crc32": (9, 4, [zlib.crc32(bytes(i % 251 for i in range(n))) for _, _, n in model_tensors().values()])}
    write("gguf", "sound", gguf(model_keys() | sound, model_tensors()))
    write("gguf", "other-fingerprint", gguf(model_keys() | sound | {"cca.fingerprint": (8, "0123456789abcdef")}, model_tensors()))
    crcs = {"cca.crc32": (9, 4, [0] * len(model_tensors()))}
    write("gguf", "yarn", gguf(model_keys() | yarn | crcs, model_tensors()))


# --- SentencePiece: protocol buffers by hand

def other_architectures():
    """Keys and tensors that llama has not: norms of heads, whole or not, and behind; fused tensors; factors; windows."""
    d, half = 8, 4
    norms = {"attn_q_norm": half, "attn_k_norm": half}
    behind = {"post_attention_norm": d, "post_ffw_norm": d}
    longrope = {f"rope_factors_{name}.weight": ((1,), 0, 4) for name in ("short", "long")}
    more = {"mistral3": {}, "qwen3": norms, "hunyuan-dense": norms, "olmo2": {"attn_q_norm": d, "attn_k_norm": half} | behind,
            "exaone4": norms | behind, "glm4": behind, "seed_oss": {"post_attention_norm": d}, "smollm3": {},
            "granite": {}, "ernie4_5": {}, "arcee": {}, "phi3": {}}
    for arch, vectors in more.items():
        keys, tensors = model_keys(arch), model_tensors()
        for name, n in vectors.items():
            tensors[f"blk.0.{name}.weight"] = ((n,), 0, 4 * n)
        if arch in ("olmo2", "exaone4"):
            del tensors["blk.0.attn_norm.weight"], tensors["blk.0.ffn_norm.weight"]
        if arch == "seed_oss":
            del tensors["blk.0.ffn_norm.weight"]
        if arch == "arcee":
            del tensors["blk.0.ffn_gate.weight"]
        if arch in ("phi3", "glm4"):
            del tensors["blk.0.ffn_gate.weight"]
            tensors["blk.0.ffn_up.weight"] = ((d, 2 * d), 0, 64 * d)
            keys[f"{arch}.rope.dimension_count"] = (4, 2)
        if arch == "phi3":
            for name in "qkv":
                del tensors[f"blk.0.attn_{name}.weight"]
            tensors["blk.0.attn_qkv.weight"] = ((d, 2 * d), 0, 64 * d)
            tensors |= longrope
            keys[f"{arch}.rope.scaling.original_context_length"] = (4, 16)
            keys[f"{arch}.rope.scaling.attn_factor"] = (6, 1.25)
        if arch in ("mistral3", "olmo2"):
            keys |= {f"{arch}.rope.scaling.type": (8, "yarn"), f"{arch}.rope.scaling.factor": (6, 4.0),
                     f"{arch}.rope.scaling.original_context_length": (4, 16)}
        if arch == "mistral3":
            keys[f"{arch}.rope.scaling.yarn_log_multiplier"] = (6, 1.0)
            keys[f"{arch}.attention.temperature_scale"] = (6, 0.1)
        if arch == "granite":
            for name, x in ("embedding_scale", 12.0), ("residual_scale", 0.22), ("attention.scale", 0.5), ("logit_scale", 8.0):
                keys[f"{arch}.{name}"] = (6, x)
        if arch == "olmo2":
            keys[f"{arch}.rope.freq_base_swa"] = (6, 10000.0)
        if arch in ("exaone4", "qwen3", "olmo2"):
            keys[f"{arch}.attention.sliding_window"] = (4, 16)
            keys[f"{arch}.attention.sliding_window_pattern"] = (4, 4) if arch == "exaone4" else (9, 7, [True])
        write("gguf", f"arch-{arch}", gguf(keys, tensors))
        write("source", f"arch-{arch}", gguf(keys, tensors))
    part = {"split.no": (2, 0), "split.count": (2, 3), "split.tensors.count": (5, 11)}
    write("gguf", "part", gguf(model_keys() | part, model_tensors()))


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, x):
    if isinstance(x, float):
        return varint(number << 3 | 5) + struct.pack("<f", x)
    if isinstance(x, int):
        return varint(number << 3) + varint(x)
    data = x if isinstance(x, bytes) else x.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def spm_model(bpe, byte_pieces=False, charsmap=b""):
    pieces = [(p, {"<unk>": 2, "<s>": 3, "</s>": 3}.get(p, 1)) for p in PIECES]
    if byte_pieces:
        pieces += [(f"<0x{b:02X}>", 6) for b in range(256)]
    out = b"".join(field(1, field(1, p) + field(2, -float(i)) + field(3, kind))
                   for i, (p, kind) in enumerate(pieces))
    trainer = field(3, 2 if bpe else 1) + field(35, int(byte_pieces))
    normalizer = field(1, "identity") + (field(2, charsmap) if charsmap else b"") + field(3, 1)
    return out + field(2, trainer) + field(3, normalizer)


def charsmap():
    """A double array with one rule: the letter b becomes c."""
    units = [0] * 256
    units[0] = 1 << 10
    units[1 ^ ord("b")] = ord("b") | 1 << 8 | 2 << 10
    units[(1 ^ ord("b")) ^ 2] = 1 << 31
    array = struct.pack("<256I", *units)
    return struct.pack("<I", len(array)) + array + b"c\0"


def sentencepiece_seeds():
    sample = "ab  lo worlda \u00e9\U0001f600<s>11".encode()
    for name, data in (("bpe", spm_model(True)), ("bytes", spm_model(True, True)),
                       ("unigram", spm_model(False)), ("rules", spm_model(True, charsmap=charsmap()))):
        write("sentencepiece", name, sample + MARK + data)
        write("vocab", name, 4 * MARK + data)
        config, added, specials = files_beside()
        write("vocab", "beside-" + name, MARK.join([b"", config, added, specials, data]))


def files_beside():
    n = len(PIECES)
    entry = {"content": "<|x|>", "special": True, "lstrip": True, "rstrip": False, "single_word": True, "normalized": False}
    config = {"legacy": False, "add_prefix_space": True, "bos_token": {"content": "<s>"}, "additional_special_tokens": ["<|y|>"],
              "added_tokens_decoder": {"0": {"content": "<unk>"}, str(n): entry, str(n + 1): {"content": "two words"}}}
    added = {"<|y|>": n + 2, "[INST]": n + 3, "three": n + 4}
    return [json.dumps(x).encode() for x in (config, added, {"eos_token": "three", "x_token": [{"content": "[INST]"}]})]


# --- Hugging Face folders and safetensors

CONFIG = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
          "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 4, "rms_norm_eps": 1e-5,
          "max_position_embeddings": 64, "rope_theta": 10000.0, "hidden_act": "silu",
          "bos_token_id": 1, "eos_token_id": [2, 3], "tie_word_embeddings": True,
          "cca": {"group_size": 4, "window_size": 16, "tuned": True}}


def safetensors(shapes, dtype="F16", size=2):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        n = size
        for extent in shape:
            n *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        at += n
    head = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(head)) + head + bytes(i % 60 for i in range(at))


def hf_shapes():
    layer = {"input_layernorm": [8], "self_attn.q_proj": [8, 8], "self_attn.k_proj": [4, 8],
             "self_attn.v_proj": [4, 8], "self_attn.o_proj": [8, 8], "post_attention_layernorm": [8],
             "mlp.gate_proj": [8, 8], "mlp.up_proj": [8, 8], "mlp.down_proj": [8, 8]}
    shapes = {"model.embed_tokens.weight": [4, 8], "model.norm.weight": [8]}
    return shapes | {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}


def hf_folder(changes, weights, index=None, template=b""):
    generation = {"eos_token_id": [2, 3], "bos_token_id": 1}
    tokenizer = {"add_bos_token": True,
                 "chat_template": [{"name": "default", "template": "{{ messages }}"}]}
    files = [json.dumps(x).encode() for x in (CONFIG | changes, generation, tokenizer)]
    return MARK.join([*files, json.dumps(index).encode() if index else b"", template, weights])


def hf_seeds():
    weights = safetensors(hf_shapes())
    scaled = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 32}
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0}
    write("hf", "plain", hf_folder({}, weights))
    write("hf", "llama3", hf_folder({"rope_scaling": scaled}, weights))
    write("hf", "yarn", hf_folder({"rope_scaling": yarn}, weights))
    write("hf", "linear", hf_folder({"rope_scaling": {"type": "linear", "factor": 2.0}}, weights))
    longrope = {"type": "su", "short_factor": [1.0, 1.5], "long_factor": [2, 4.0]}
    write("hf", "longrope", hf_folder({"rope_scaling": longrope, "original_max_position_embeddings": 16}, weights))
    kinds = {"full_attention": yarn | {"rope_theta": 1e4}, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    write("hf", "olmo3", hf_folder({"model_type": "olmo3", "rope_parameters": kinds, "sliding_window": 8,
                                    "layer_types": ["sliding_attention"]}, weights))
    grows = yarn | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
    text = CONFIG | {"model_type": "ministral3", "rope_parameters": grows}
    nested = safetensors({"language_model." + name: shape for name, shape in hf_shapes().items()} |
                         {"vision_tower.ln_pre.weight": [8]})
    write("hf", "mistral3", hf_folder({"model_type": "mistral3", "text_config": text}, nested))
    write("hf", "pattern", hf_folder({"model_type": "exaone4", "sliding_window": 8, "sliding_window_pattern": "LLLG"}, weights))
    write("hf", "qwen2", hf_folder({"model_type": "qwen2", "use_sliding_window": False}, weights))
    write("hf", "index", hf_folder({}, b"", {"weight_map": {"model.norm.weight": "a.safetensors"}}))
    write("hf", "part", hf_folder({"model_type": "glm4", "partial_rotary_factor": 0.5}, weights, template=b"{{ messages }}"))
    write("hf", "alpha", hf_folder({"model_type": "hunyuan_v1_dense", "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}},
                                   weights))
    write("hf", "turns", hf_folder({"model_type": "smollm3", "no_rope_layers": [1], "attention_bias": False}, weights))
    write("hf", "named", hf_folder({"cca": {"chat_template": "chatml", "sinks": 0, "cores": 2}}, weights))
    mapped = {name: "model.safetensors" for name in hf_shapes()}
    write("hf", "mapped", hf_folder({}, weights, {"weight_map": mapped}))
    write("safetensors", "model", weights)
    write("safetensors", "bf16", safetensors({"a": [2, 3], "b": [], "c": [1, 1, 2]}, "BF16"))
    write("safetensors", "empty", safetensors({}))
    write("safetensors", "many", safetensors({f"t{i}": [1] for i in range(40)}, "F32", 4))


# --- tokenizer.json: those of the golden models, with few merges

def small_tokenizer(tokenizer):
    model = tokenizer["model"]
    model["merges"] = model["merges"][:6]
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    added = {t["content"] for t in tokenizer["added_tokens"]}
    made = {left + right for left, right in pairs}
    kept = [t for t in model["vocab"] if len(t) == 1 or t in made | added or t.startswith("<0x")]
    model["vocab"] = {t: i for i, t in enumerate(kept)}
    n = len(kept)
    for token in tokenizer["added_tokens"]:
        if token["content"] not in model["vocab"]:
            token["id"], n = n, n + 1
        else:
            token["id"] = model["vocab"][token["content"]]
    return json.dumps(tokenizer, ensure_ascii=False).encode()


def tokenizer_seeds():
    write("vocab", "prefix-number", b'{"model": {"type": "BPE", "continuing_subword_prefix": 5, "vocab": {}}}')
    for path in sorted(Path(__file__).parent.parent.glob("golden/models/hf-text-*/tokenizer.json")):
        write("vocab", path.parent.name, small_tokenizer(json.loads(path.read_text())))
    write("vocab", "beside", MARK.join([small_tokenizer(json.loads(path.read_text())), *files_beside()]))
    families = json.loads((Path(__file__).parent.parent / "golden/bpe/families.json").read_text())
    for family in families["families"]:
        parts = {key: family[key] for key in ("normalizer", "pre_tokenizer", "added_tokens")}
        model = families["models"][family["model"]] | {"ignore_merges": family["ignore_merges"]}
        write("vocab", "family-" + family["name"].replace(", ", "-").replace(" ", "-"),
              small_tokenizer(parts | {"model": model}))


# --- llama2.c

def llama2c_seeds():
    header = (8, 8, 1, 2, 1, 4, 16)
    n_floats = 4 * 8 + 8 + 8 * 8 + 2 * 8 * 4 + 8 * 8 + 8 + 3 * 8 * 8 + 8
    weights = struct.pack(f"<{n_floats}f", *(i / 64 for i in range(n_floats)))
    tables = bytes(16 * 4 * 4)
    output = struct.pack("<32f", *range(32))
    write("llama2c", "v0", struct.pack("<7i", *header) + weights + tables)
    write("llama2c", "v0-untied", struct.pack("<7i", *header[:5], -4, 16) + weights + tables + output)
    v1 = struct.pack("<Ii7i?", 0x616B3432, 1, *header, True)
    write("llama2c", "v1", v1 + bytes(256 - len(v1)) + weights)
    tokens = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [f"<0x{b:02X}>".encode() for b in range(256)]
    tokens += [b" ", b"a", b" the", "\u00e9".encode()]
    write("vocab", "llama2c", struct.pack("<i", 7) + b"".join(
        struct.pack("<fi", -i, len(t)) + t for i, t in enumerate(tokens)))


# --- chat templates

def chat_seeds():
    for i in range(6):
        texts = [b"Be brief. <|im_end|>", "A caf\u00e9 a aa </s>[INST]".encode(), b"Who?"]
        write("chat", str(i), bytes([i]) + MARK.join(texts))


def template_seeds():
    """The cases of tests/golden/jinja: templates by the dozen, expressions several at a time."""
    golden = json.loads((ROOT / "../../golden/jinja/cases.json").read_text())
    cases = [case["template"] for case in golden["cases"]]
    for i in range(0, len(cases), 6):
        write("template", f"golden{i // 6}", "\n".join(cases[i:i + 6]).encode())
    whole = [case for case in cases if "{%" in case and "text" in golden["cases"][cases.index(case)]]
    for i, case in enumerate(whole):
        write("template", f"case{i}", case.encode())
    lists = "{% set l = [3, 1, 'a'] %}{{ l.insert(1, 2) }}{{ l.pop(0) }}{{ l.remove('a') }}{{ l.index(1) }}{{ l.reverse() }}{{ l.clear() }}"
    dicts = "{% set d = {'a': 1} %}{{ d.setdefault('b', 2) }}{{ d.pop('a') }}{{ d.update(c=3) }}{{ d.copy() }}{{ d.pop('x', 0) }}"
    write("template", "changes", (lists + dicts).encode())
    write("template", "endless-fill", b"{{ 'a'.ljust(9223372036854775807, '') }}")
    write("template", "numbers-at-their-ends", b"{{ 'a'|center(-9223372036854775807) }}{{ 9223372036854775807 % -2 }}")
    variables = json.dumps(golden["variables"], ensure_ascii=False).encode()
    write("template", "variables", b"{{ messages|tojson }}{{ d }}{{ s.split()|join('-') }}" + MARK + variables)


# --- texts and command lines

WORDS = "Hello, world's 12345 caf\u00e9 e\u0301 \u4e16\u754c \U0001f600\n\n  tabs\there\r\nend "


def text_seeds():
    for i in range(10):
        write("bpe", f"text{i}", bytes([i]) + WORDS.encode())
    steps = ["nfkc", "lowercase", "strip left", "strip right", "replace \\s+", "with _", "prepend \u2581",
             "space \u2581", "lead-first \u2581", "next \u2581", "removed-not [^\\p{Lu}\\s]{1,3}+|\\w\\b", "letters",
             "contiguous (?i:l)(?=\\S)|$", "previous [[a-z]0-9]"]
    for i, own in enumerate((steps, [s.replace("}+", "}") for s in steps], steps[:1], steps[7:10])):
        write("bpe", f"steps{i}", bytes([10 | i << 6]) + MARK.join([WORDS.encode(), b"", b"", "\n".join(own).encode()]))
    tokens = "\n".join(alphabet() + [m.replace(" ", "") for m in MERGES]).encode()
    write("bpe", "merges", b"\0" + WORDS.encode() + MARK + tokens + MARK + "\n".join(MERGES).encode())
    packed = gzip.compress(WORDS.encode() * 3, mtime=0)
    broken = b"ok \xff\xc3 \xed\xa0\x80 \xf0\x9f\x98"
    for how in range(3):
        write("input", f"text{how}", bytes([how]) + WORDS.encode())
        write("input", f"broken{how}", bytes([how | 4]) + broken)
        write("input", f"gzip{how}", bytes([how]) + packed + packed + bytes(8))
    write("input", "bomb", b"\0" + gzip.compress(bytes(1 << 20), mtime=0))
    write("input", "ids", b"\x03" + b"1 2 31999\n7\t0 ")
    lines = ["-m\nmodel.gguf\n-p\nhello\n-f\n-\n-n\n-1\n--temp=0.5\n--top-k\n40\n--json\n-o\nout",
             "--mem-limit\n1.5G\n--attn\nsinks:4\n-g\n16\n-w\n1024\n--stop\n.\n-e\n--color=off",
             "--ctx-size=0\n--no-such\n--mode\nllama.cpp\n--stride\n99999999999999999999",
             "IN\n-o\nOUT\n--random\n1,2,3,4,5,6\n--\n--type\nq8_0", "-h", "--\n\n\n--temp\nnan"]
    for i, line in enumerate(lines):
        for command in range(7):
            write("args", f"{i}-{command}", bytes([command]) + line.encode())


def session(*segments, facts=b"model=00112233\ngroup_size=4\n"):
    out = b"CCASESS\x01" + struct.pack("<II", len(facts), zlib.crc32(facts)) + facts
    for kind, first, n, data in segments:
        header = struct.pack("<4sIqqQI", b"CSEG", kind, first, n, len(data), zlib.crc32(data))
        out += bytes(-len(out) % 64) + (header + struct.pack("<I", zlib.crc32(header))).ljust(64, b"\0") + data
    return out


def session_seeds():
    """Of the cache that fuzz_session.c has: a row of cores takes 32 bytes, one of the window 16."""
    tokens, rows, window = 1, 2, 3

    def segment(kind, first, n, bytes_each):
        return kind, first, n, bytes(i % 251 for i in range(n * bytes_each))

    first = [segment(tokens, 0, 9, 4), segment(rows, 0, 2, 32), segment(window, 0, 9, 16)]
    second = [segment(tokens, 9, 21, 4), segment(rows, 2, 5, 32), segment(window, 18, 12, 16)]
    write("session", "one", session(*first))
    write("session", "two", session(*first, *second))
    write("session", "torn", session(*first, *second)[:-40])
    write("session", "dropped", session(*first[:2], (0, *first[2][1:]), *second))
    write("session", "empty", session())


def block_seeds():
    """Two rows of a block or two of each type that runs, and three of x."""
    sizes = (4, 2, 2, 34, 18, 20, 22, 24, 84, 110, 144, 176, 210, 18, 136)  # bytes of a block
    for i, size in enumerate(sizes):
        row = bytes(b % 61 for b in range(2 * size))  # scales of a size that halves and floats have
        write("blocks", str(i), bytes([i, 2, 1]) + row * (32 if size <= 4 else 2))
    row = b"".join(struct.pack("<H32b", scale, *[x] * 32) for scale, x in ((0x36d, 1), (0x100, 1), (0x4000, 0), (0, 0), (0, 0)))
    write("blocks", "zeros-with-a-scale", bytes([3, 0, 0]) + row)


gguf_seeds()
other_architectures()
sentencepiece_seeds()
hf_seeds()
tokenizer_seeds()
llama2c_seeds()
chat_seeds()
template_seeds()
text_seeds()
session_seeds()
block_seeds()
