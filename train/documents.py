#!/usr/bin/env python3
"""Rows of a chat model's tokens: pieces of books, and documents with planted facts that are asked for.

    rows = Rows(texts, tokenizer, template, answers)
    ids, answer = rows.row(random.Random(7), 8192)  # exactly 8192 + 1 of each: ids, and whether they are of an answer

A third of the rows are books alone, or text of other kinds where it is given. Others are a chat in the model's template: a document, which is a piece of a
book with facts or records planted at the ends of its paragraphs, and turns of question and answer behind it; where answers are
given, half of the chats about facts have what the model itself has answered. Records also stand in one paragraph that is said over
and over, or alone. All tokens are for a teacher to judge; those of
answers are told, as they may count more. As a program it makes documents and questions for the model to answer:

    documents.py --books BOOKS.tar.xz --bytes 20000 --count 200 -o DIR      # DIR/0000.txt, DIR/0000.jsonl, …
    cca ask -m BASE.gguf --attn full -f DIR/0000.txt -Q DIR/0000.jsonl --jsonl -n 40 >DIR/0000.answers
"""
import argparse
import json
import random
import re
import tarfile
from pathlib import Path

import jinja2
import numpy as np

import books
import questions
import records

HERE = "\x1d"  # stands for the document while a chat is laid out
MARK = "\x1e"  # stands before and behind an answer
TURNS = 10  # at most


def paragraphs_of(text, start, size):
    """Whole paragraphs of about so many characters from a place in a text on."""
    begin = text.find("\n\n", start) + 2
    begin = begin if begin > 1 else start
    end = text.find("\n\n", begin + size)
    return text[begin : end if end > 0 else len(text)].split("\n\n")


def facts_in(rng, n):
    """Statements of facts, and a question and an answer for each that has one: (statements, turns)."""
    facts = questions.several(rng, n)
    asked = [(i, found) for i, fact in enumerate(facts) if (found := questions.ask(rng, fact, facts))]
    return [fact.statement for fact in facts], asked


def planted(rng, paragraphs, statements):
    """The paragraphs with each statement as one of its own, or at the end of one, somewhere in the last four fifths."""
    out = list(paragraphs)
    for statement in statements:
        at = rng.randint(len(out) // 5, len(out))
        if at < len(out) and rng.random() < 0.5:
            out[at] = f"{out[at]} {statement}"
        else:
            out.insert(at, statement)
    return "\n\n".join(out)


def chat_template(text):
    """A model's Jinja template as a function of messages; what it refuses is an error."""
    def refuse(message):
        raise ValueError(message)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return lambda messages: environment.from_string(text).render(messages=messages, add_generation_prompt=False, raise_exception=refuse)


def answered(folder):
    """What a model has answered about the documents in a folder: a list of (document, [(question, answer)])."""
    out = []
    for file in sorted(Path(folder).glob("*.answers")):
        asked = [json.loads(line)["question"] for line in file.with_suffix(".jsonl").read_text().splitlines()]
        events = [json.loads(line) for line in file.read_text().splitlines()]
        texts = [e["text"] for e in events if e.get("event") == "answer"]
        if len(texts) == len(asked):
            out.append((file.with_suffix(".txt").read_text(), list(zip(asked, texts))))
    return out


def kinds(path):
    """Texts of other kinds than books, from a tar file with a folder for each: a list of lists."""
    found = {}
    with tarfile.open(path) as tar:
        for member in sorted((m for m in tar if m.isfile()), key=lambda m: m.name):
            text = tar.extractfile(member).read().decode("utf-8", "replace")
            found.setdefault(Path(member.name).parts[0], []).append(text)
    return list(found.values())


class Shelf:
    """Texts to take pieces from, each character as likely as another."""

    def __init__(self, texts):
        self.texts, self.sizes = texts, np.cumsum([len(t) for t in texts])

    def piece(self, rng, size):
        """Paragraphs of about so many characters, from anywhere."""
        at = rng.randrange(int(self.sizes[-1]))
        i = int(np.searchsorted(self.sizes, at, "right"))
        text, first = self.texts[i], at - (int(self.sizes[i - 1]) if i else 0)
        return paragraphs_of(text, max(0, min(first, len(text) - size)), size)


class Rows:
    """texts: of books; tokenizer: a tokenizers.Tokenizer; template: of chat_template, None: books alone;
    answers: of `answered`; records: the share of the chats that is about records; others: of `kinds`, each kind as likely,
    in the place of books in a share of others_share."""

    def __init__(self, texts, tokenizer, template=None, answers=(), records=0, others=(), others_share=0):
        self.tokenizer, self.template, self.answers, self.records = tokenizer, template, answers, records
        self.books, self.others, self.others_share = Shelf(texts), [Shelf(t) for t in others], others_share
        sample = texts[0][:20000]
        self.spacious = 1.1 * len(sample) / len(self.encode(sample)) if tokenizer else 0  # characters a token, rather more

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def piece(self, rng, size):
        other = self.others and rng.random() < self.others_share
        return (rng.choice(self.others) if other else self.books).piece(rng, size)

    def plain(self, rng, length):
        ids = []
        while len(ids) <= length:  # a short book is followed by another
            ids += self.encode("\n\n".join(self.piece(rng, round(self.spacious * (length - len(ids))) + 200)))
        return ids[: length + 1]

    def laid_out(self, turns):
        """A chat without its document: ids before it, and behind it ids and which are of answers. The first question
        follows the document. An answer is cut from what stands before it, as where a model goes on from a prompt."""
        messages = []
        for i, (question, answer) in enumerate(turns):
            messages.append({"role": "user", "content": question if i else f"{HERE}\n\n{question}"})
            messages.append({"role": "assistant", "content": f"{MARK}{answer}{MARK}"})
        head, tail = self.template(messages).split(HERE)
        parts = [self.encode(part) for part in tail.split(MARK)]
        return self.encode(head), sum(parts, []), sum(([i % 2 == 1] * len(part) for i, part in enumerate(parts)), [])

    def recorded(self, rng, length):
        """A document with records, which with its turns has rather more than so many tokens: (document, turns). The text is
        a book's, one paragraph of it over and over, or other records."""
        statements, turns = records.several(rng, rng.choice((1, 1, 2, 4, 4, 8)))
        turns = turns[:TURNS]
        length -= len(self.laid_out(turns)[1]) + len(self.encode("\n\n".join(statements)))
        kind, other = rng.random(), 0
        size = round(self.spacious * length)
        paragraphs = self.piece(rng, size) if kind > 0.2 else []
        while kind <= 0.2 and other < 1.1 * length:
            more = records.several(rng, 60)[0]
            paragraphs += more
            other += len(self.encode("\n\n".join(more)))
        if 0.2 < kind < 0.45:
            short = rng.choice(paragraphs)[:300]
            short = short[: short.rfind(".") + 1] or short
            paragraphs = [short] * (size // (len(short) + 2) + 1)
        return planted(rng, paragraphs, statements), turns

    def chat(self, rng, length):
        """The front of the document is cut off, so that the row is as long as it shall be."""
        if self.records and rng.random() < self.records:
            document, turns = self.recorded(rng, length)
        elif self.answers and rng.random() < 0.5:
            document, turns = rng.choice(self.answers)
            turns = rng.sample(turns, min(len(turns), rng.randint(1, TURNS)))
            document = "\n\n".join([*self.piece(rng, max(0, round(self.spacious * length) - len(document))), document])
        else:
            facts, asked = facts_in(rng, rng.randint(1, max(2, length // 400)))
            turns = [found for _, found in rng.sample(asked, min(len(asked), rng.randint(1, TURNS)))]
            document = planted(rng, self.piece(rng, round(self.spacious * length)), facts)
        if turns:
            head, tail, answer = self.laid_out(turns)
            body = self.encode(document)[-max(1, length + 1 - len(head) - len(tail)) :]
            ids = head + body + tail
            if len(ids) == length + 1:
                return ids, [False] * (len(ids) - len(tail)) + answer
        return self.plain(rng, length), [False] * (length + 1)

    def row(self, rng, length):
        if not self.template or rng.random() < 1 / 3:
            return self.plain(rng, length), [False] * (length + 1)
        return self.chat(rng, length)


def main(argv=None):
    p = argparse.ArgumentParser(description="Make documents with planted facts, and questions about them.")
    p.add_argument("--books", required=True, help="tar.xz of books")
    p.add_argument("--bytes", type=int, default=20000, help="of a document, about")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("-o", "--out", type=Path, required=True)
    args = p.parse_args(argv)
    rng, shelf = random.Random(args.seed), Rows([b.text for b in books.read(args.books)], None)
    args.out.mkdir(parents=True, exist_ok=True)
    for i in range(args.count):
        facts, asked = facts_in(rng, 2 * TURNS)
        text = planted(rng, shelf.piece(rng, args.bytes), facts)
        (args.out / f"{i:04}.txt").write_text(re.sub(f"[{HERE}{MARK}]", " ", text))
        lines = [json.dumps({"question": question}) for _, (question, _) in asked]
        (args.out / f"{i:04}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
