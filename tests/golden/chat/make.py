#!/usr/bin/env python3
"""Writes what tests/unit/test_chat.c expects.

    pip install sentencepiece==0.2.3 transformers==5.23.0 tokenizers==0.23.3 protobuf
    python tests/golden/chat/make.py

Trains a small SentencePiece model that has the control tokens of all templates (chat.model.gz) and
writes the ids that transformers' apply_chat_template gives for conversations (chat.ids), a line
each: template, system text or "-", user text (both with \\n and \\\\ escaped), ids; separated by
tabs. The Jinja templates below say what those of the model families say; in chat.jinja each stands
with its family's name in front, separated by NUL. Conversations of two exchanges are in turns.ids:
template, system text, question, answer, question, ids.

The same for the byte-level tokenizers of ../models/hf-text-*, with the template of their family
(llama3.ids, qwen2.ids, smollm.ids, and *-turns.ids); llama3.json is that of hf-text-llama3 with the two tokens that it
lacks. Then transformers encodes scaffold and text as one.
"""

import gzip
import io
import pathlib
import tempfile

import sentencepiece
import tokenizers
import transformers

HERE = pathlib.Path(__file__).parent
CONTROL = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"]

TEMPLATES = {
    "llama2": """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set rest = messages[1:] -%}
    {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
{%- else -%}
    {%- set rest = messages -%}
    {%- set system = '' -%}
{%- endif -%}
{%- for message in rest -%}
    {%- if message['role'] == 'user' -%}
        {{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message['content'] + ' ' + eos_token -}}
    {%- endif -%}
{%- endfor -%}""",
    "mistral": """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set rest = messages[1:] -%}
    {%- set system = messages[0]['content'] + '\\n\\n' -%}
{%- else -%}
    {%- set rest = messages -%}
    {%- set system = '' -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in rest -%}
    {%- if message['role'] == 'user' -%}
        {{- '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message['content'] + eos_token -}}
    {%- endif -%}
{%- endfor -%}""",
    "llama3": """\
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
    {{- message['content'] + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}""",
    "chatml": """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}""",
    "zephyr": """\
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<|user|>\\n' + message['content'] + eos_token + '\\n' -}}
    {%- elif message['role'] == 'system' -%}
        {{- '<|system|>\\n' + message['content'] + eos_token + '\\n' -}}
    {%- else -%}
        {{- '<|assistant|>\\n' + message['content'] + eos_token + '\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>\\n' -}}
{%- endif -%}""",
}

CONVERSATIONS = [
    (None, "Hello"),
    (None, "Who wrote the letter, and when?"),
    ("You are a careful reader.", "What is the budget for 2024?"),
    ("Answer in one word.", "First line\nsecond line\n\nthird"),
    ("Réponds en français.", "Où est l'été? 日本語 \\ {}"),
    (None, "[an aside] (and 3 + 4)"),
]
TURNS = [
    (None, "Hello", "Good day.", "Who wrote the letter?"),
    ("Answer in one word.", "When?", "In 1667.", "First line\nsecond line"),
    (None, "What?", "[an aside] x ", "And why, then?"),
]


def train():
    texts = (HERE / "../tokenizer/golden.txt").read_text().split("\n")
    sentences = [t for t in texts if t and not t.startswith("#") and t.isascii()]
    sentences += [t for template in TEMPLATES.values() for t in template.split("\n")]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, num_threads=1, minloglevel=1,
        model_type="bpe", vocab_size=560, normalization_rule_name="identity", byte_fallback=True,
        split_digits=True, remove_extra_whitespaces=False, control_symbols=CONTROL,
    )  # fmt: skip
    return out.getvalue()


def open_tokenizer(model, legacy):
    """legacy: text behind any control token gets a dummy prefix, as Llama 2 and Mistral were
    trained with; there only BOS has text behind it. The others put none behind their own tokens."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "tokenizer.model").write_bytes(model)
        tokenizer = transformers.LlamaTokenizer.from_pretrained(folder, legacy=legacy)
    tokenizer.add_special_tokens({"additional_special_tokens": CONTROL})
    return tokenizer


def open_byte_level(name):
    tok = tokenizers.Tokenizer.from_file(str(HERE / f"../models/hf-text-{name}/tokenizer.json"))
    bos = None
    if name == "llama3":
        bos = "<|begin_of_text|>"
        tok.add_special_tokens(CONTROL[:2])
        tok.save(str(HERE / "llama3.json"), pretty=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=bos)


def escape(text):
    return "-" if text is None else text.replace("\\", "\\\\").replace("\n", "\\n")


def conversations(tokenizer, name, all_texts):
    for system, *texts in all_texts:
        messages = [{"role": "system", "content": system}] if system else []
        for i, text in enumerate(texts):
            messages.append({"role": ("user", "assistant")[i % 2], "content": text})
        ids = tokenizer.apply_chat_template(
            messages, chat_template=TEMPLATES[name], add_generation_prompt=True, return_dict=False
        )
        yield ids, "\t".join([name, escape(system), *map(escape, texts), " ".join(map(str, ids))])


def write(path, lines):
    (HERE / path).write_text("".join(line + "\n" for line in lines), newline="\n")


def main():
    model = train()
    (HERE / "chat.model.gz").write_bytes(gzip.compress(model, 9, mtime=0))
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    lines, turns = [], []
    for name in TEMPLATES:
        tokenizer = open_tokenizer(model, legacy=name in ("llama2", "mistral"))
        for texts, out in ((CONVERSATIONS, lines), (TURNS, turns)):
            for ids, line in conversations(tokenizer, name, texts):
                assert max(ids) < pieces.vocab_size(), "tokens that the model does not have"
                out.append(line)
    write("chat.ids", lines)
    write("turns.ids", turns)
    for kind, name in (("llama3", "llama3"), ("qwen2", "chatml"), ("smollm", "chatml")):
        tokenizer = open_byte_level(kind)
        write(f"{kind}.ids", [line for _, line in conversations(tokenizer, name, CONVERSATIONS)])
        write(f"{kind}-turns.ids", [line for _, line in conversations(tokenizer, name, TURNS)])
    jinja = "".join(f"{name}\0{template}\0" for name, template in TEMPLATES.items())
    (HERE / "chat.jinja").write_text(jinja, newline="\n")
    print(f"{len(model)} bytes, {len(lines)} conversations")


if __name__ == "__main__":
    main()
