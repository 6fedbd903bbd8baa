#!/usr/bin/env python3
"""Writes what tests/cli/tokenizers.sh expects of tokens that were added to a vocabulary.

    pip install tokenizers==0.23.3
    python tests/golden/models/make_added.py

Adds <honk> and <café>, which are not special, to the tokenizer.json of each folder hf-text-*, once with
"normalized": true and once with false, and writes the ids of Hugging Face's tokenizers (added.ids), a
line each: folder, normalized, text (\\n escaped), ids; separated by tabs. Left out are texts where
docs/MODEL.md names a difference: those that start with a space, and those with text behind a token
that is found before the text is normalised, where SentencePiece's kind puts no ▁ in front.
"""

import json
import pathlib

import tokenizers

HERE = pathlib.Path(__file__).parent
TEXTS = ["a<honk>b", "a <honk> b", "x<honk>", "one two <honk>", "one\n<honk>two", "<honk> at once",
         "<honk><honk>", "a <honk> <honk>", "é<café>", "x<cafe\u0301>y", "x <cafe\u0301> y",
         "<honk>\u0338", "plain é e\u0301"]  # fmt: skip


def main():
    lines = []
    for name in ("llama2", "metaspace", "llama3", "qwen2", "smollm"):
        for normalized in (True, False):
            whole = json.loads((HERE / f"hf-text-{name}/tokenizer.json").read_text())
            first = 1 + max({t["id"] for t in whole["added_tokens"]} | set(whole["model"]["vocab"].values()))
            for i, text in enumerate(("<honk>", "<café>")):
                whole["added_tokens"].append(
                    dict(id=first + i, content=text, single_word=False, lstrip=False, rstrip=False,
                         normalized=normalized, special=False)
                )  # fmt: skip
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(whole))
            for text in TEXTS:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                raw = name == "metaspace" or (name == "llama2" and not normalized)
                found = [i for i in ids if i >= first]
                if raw and (not text.endswith(">") or len(found) > 1 or text[0] == "<"):
                    continue
                escaped = text.replace("\n", "\\n")
                lines.append("\t".join([f"hf-text-{name}", str(normalized).lower(), escaped, " ".join(map(str, ids))]))
    (HERE / "added.ids").write_text("".join(line + "\n" for line in lines), newline="\n")
    print(f"{len(lines)} lines")


if __name__ == "__main__":
    main()
