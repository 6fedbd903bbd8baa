#!/usr/bin/env python3
"""Writes what tests/unit/test_chat.c expects of Mistral's later versions.

    pip install sentencepiece==0.2.3
    python tests/golden/chat/make_mistral.py

Trains a small SentencePiece model that has their control symbols, as Mistral's own have (mistral.model.gz),
and writes ids of conversations (mistral.ids, lines as in chat.ids and turns.ids) as Mistral's documentation
of its tokenizers has them: each text encoded by SentencePiece with its dummy prefix, between the ids of
control symbols, with nothing else. V3 puts the system text in front of a user's, V7 between symbols of its own.
"""

import gzip
import io
import pathlib

import sentencepiece

HERE = pathlib.Path(__file__).parent
CONTROL = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
CONVERSATIONS = [
    (None, "Hello"),
    (None, "Who wrote the letter, and when?"),
    ("You are a careful reader.", "What is the budget for 2024?"),
    ("Answer in one word.", "First line\nsecond line\n\nthird"),
    (None, "Hello", "Good day.", "Who wrote the letter?"),
    ("Answer in one word.", "When?", "In 1667.", "First line\nsecond line"),
]


def escape(text):
    return "-" if text is None else text.replace("\\", "\\\\").replace("\n", "\\n")


def main():
    texts = (HERE / "../tokenizer/golden.txt").read_text().split("\n")
    sentences = [t for t in texts if t and not t.startswith("#") and t.isascii()]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, num_threads=1, minloglevel=1,
        model_type="bpe", vocab_size=420, normalization_rule_name="identity", byte_fallback=True,
        split_digits=True, remove_extra_whitespaces=False, control_symbols=CONTROL,
    )  # fmt: skip
    (HERE / "mistral.model.gz").write_bytes(gzip.compress(out.getvalue(), 9, mtime=0))
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    begin, end, system_begin, system_end = (sp.piece_to_id(c) for c in CONTROL)
    lines = []
    for name in ("mistral", "mistral-v3", "mistral-v7"):
        for system, *turns in CONVERSATIONS:
            ids = [sp.bos_id()]
            if system and name == "mistral-v7":
                ids += [system_begin] + sp.encode(system) + [system_end]
            for i, text in enumerate(turns):
                whole = f"{system}\n\n{text}" if system and i == 0 and name != "mistral-v7" else text
                ids += sp.encode(text) + [sp.eos_id()] if i % 2 else [begin] + sp.encode(whole) + [end]
            lines.append("\t".join([name, escape(system), *map(escape, turns), " ".join(map(str, ids))]))
    (HERE / "mistral.ids").write_text("".join(line + "\n" for line in lines), newline="\n")
    print(f"{len(lines)} conversations")


if __name__ == "__main__":
    main()
