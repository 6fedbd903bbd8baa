#!/usr/bin/env python3
"""Writes what tests/cli/tokenizers.sh expects of tokens that were added to a vocabulary.

    pip install tokenizers==0.23.3
    python tests/golden/models/make_added.py

Adds <honk> and <café>, which are not special, and <sp>, which is, to the tokenizer.json of each folder
hf-text-*, once with "normalized": true for the first two and once with false, and writes the ids of Hugging
Face's tokenizers (added.ids), a line each: folder, normalized, text (\\n escaped), ids; separated by tabs.
hf-text-metaspace-always is hf-text-metaspace with another prepend_scheme.
"""

import json
import pathlib

import tokenizers

HERE = pathlib.Path(__file__).parent
TEXTS = ["a<honk>b", "a <honk> b", "x<honk>", "one two <honk>", "one\n<honk>two", "<honk> at once",
         "<honk><honk>", "a <honk> <honk>", "é<café>", "x<cafe\u0301>y", "x <cafe\u0301> y",
         "<honk>\u0338", "plain é e\u0301", " one", "  two", "<sp>one", "<sp> one", " <sp>  two<sp>", "one<sp><honk>two",
         "<honk><sp>one", "<sp> <honk>two", "▁one<sp>▁two", "<sp>\n<sp>one two",
         " <honk> one"]  # fmt: skip


def main():
    lines = []
    for name in ("llama2", "metaspace", "metaspace-always", "llama3", "qwen2", "smollm"):
        for normalized in (True, False):
            whole = json.loads((HERE / f"hf-text-{name.removesuffix('-always')}/tokenizer.json").read_text())
            if name.endswith("-always"):
                whole["pre_tokenizer"]["prepend_scheme"] = "always"
            first = 1 + max({t["id"] for t in whole["added_tokens"]} | set(whole["model"]["vocab"].values()))
            for i, text in enumerate(("<honk>", "<café>", "<sp>")):
                whole["added_tokens"].append(
                    dict(id=first + i, content=text, single_word=False, lstrip=False, rstrip=False,
                         normalized=normalized and i < 2, special=i == 2)
                )  # fmt: skip
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(whole))
            for text in TEXTS:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                escaped = text.replace("\n", "\\n")
                lines.append("\t".join([f"hf-text-{name}", str(normalized).lower(), escaped, " ".join(map(str, ids))]))
    (HERE / "added.ids").write_text("".join(line + "\n" for line in lines), newline="\n")
    print(f"{len(lines)} lines")


if __name__ == "__main__":
    main()
