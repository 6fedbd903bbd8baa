#!/usr/bin/env python3
"""Questions about documents: planted facts, and a maker of test documents.

    questions.py BOOKS.tar.xz --tokenizer M --tokens 8192 --depth 50 --count 20 -o DIR

writes DIR/8192-50-00.txt … (a piece of a book with one planted fact) and DIR/questions.jsonl with
{"file", "question", "answer", "tokens", "depth"} a line. With --held-out fact and question have
wordings that are never trained on.

A question is asked in the template `plain`, where document, scaffold and question are tokenised
apart: document, "\n\nQuestion: ", question, "\nAnswer:", then " " + answer + "\n".
"""
import argparse
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from slots import Slots

ASK, ANSWER = "\n\nQuestion: ", "\nAnswer:"


@dataclass
class Kind:
    statements: list = field(default_factory=list)
    asks: list = field(default_factory=list)  # (answer's slot, question)
    held_statements: list = field(default_factory=list)
    held_asks: list = field(default_factory=list)


@dataclass
class Fact:
    parts: list  # (kind, values): what may be asked
    statement: str
    held_out: bool = False


SLOT = re.compile(r"\{(\w+ )?(\w+)\}")
CHOICE = re.compile(r"\[([^\[\]]*)\]")


def alternatives(text):
    """Parts divided by | outside of brackets."""
    return re.split(r"\|(?![^\[]*\])", text.replace("\n", ""))


def slots(template):
    """Names of the slots of a template; {The thing} and {Word} are capitalised {thing}, {word}."""
    return [m.group(2).lower() for m in SLOT.finditer(template)]


def fill(template, values, rng):
    """The template with one of each [a|b] and the values in its slots."""

    def value(m):
        text = values[m.group(2).lower()]
        return text[0].upper() + text[1:] if m.group(1) or m.group(2)[0].isupper() else text

    text = CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), template)
    text = re.sub(r"  +| (?=[.,?;:])", lambda m: " " if m.group()[1:] else "", text)
    text = SLOT.sub(value, text)
    return text[0].upper() + text[1:]


def load(path=Path(__file__).with_name("facts.txt")):
    """The kinds to train on, and those that are held out."""
    kinds, held, text = [], [], re.sub(r"^#.*\n", "", Path(path).read_text(), flags=re.M)
    for paragraph in text.strip().split("\n\n"):
        kind, (first, *lines) = Kind(), paragraph.strip().splitlines()
        for line in lines if first == "~~" else [first, *lines]:
            if m := re.match(r"([a-z_0-9]+): (.*)", line):
                for question in m.group(2).split(" | "):
                    (kind.held_asks if question[0] == "~" else kind.asks).append((m.group(1), question.lstrip("~")))
            else:
                (kind.held_statements if line[0] == "~" else kind.statements).append(line.lstrip("~"))
        (held if first == "~~" else kinds).append(kind)
    return kinds, held


KINDS, HELD_KINDS = load()

# What may stand around a fact: {S} is it, {s} the same within a sentence. The last ones are held out.
FRAMES = alternatives("""{S}|As [everybody|everyone] [knew|knows], {s}|[He|She] [said|wrote|remembered|noticed|added|thought] that {s}|
"{S}" said {person}.|Note: {S}|P.S. {S}|N.B. {S}|It should be mentioned that {s}|Although it rained all day, {s}|
[Some|Many] people [say|think|believe] that {s}|[By the way|In fact|Besides|Moreover|However|Indeed|To be exact], {s}|
Dear {person}, you asked me for news. {S} With kind regards, {other}|[You may not know|Please note|I have heard] that {s}|
When the rain had stopped and the guests had gone, [he|she|{person}] [said|explained] that {s}|- {S}|* {S}|
[I|We] [must|should] tell you one thing more: {s}|"Is it true?" "[Yes|Certainly|Of course], {s}\"""")
HELD_FRAMES = alternatives("""On the last page of the diary stood this: {s}|[He|She] was sure of one thing, namely that {s}|
"My dear {person}," began the letter, "{s}|What nobody had told {person} was that {s}""")
LOWER = """The Every It In At On For There They By Of Against To Whoever Anyone Everybody Somebody Nobody If Not A An This When As
From Before After Only Nothing One Because Since With Until Without Under Over Behind Near Beneath Beside Inside What Who
People Between Last Standing Friends Members""".split()


def within(statement):
    """A statement as it stands within a sentence."""
    first = statement.split(" ", 1)[0]
    return statement[0].lower() + statement[1:] if first in LOWER else statement


def framed(rng, statement, held_out):
    """The statement within a longer sentence, now and then."""
    if rng.random() < 0.6 or not statement.endswith(".") or re.search(r"[a-z0-9][.:;!?]\W", statement[:-1]) or '"' in statement:
        return statement
    frame = rng.choice(HELD_FRAMES if held_out else FRAMES)
    people = Slots(rng)
    statement = statement[:-1] + "," if frame.startswith('"{S}"') else statement
    values = {"person": people.person(), "other": people.person(), "s": within(statement)}
    if "{S}" in frame:
        values["s"] = statement
    text = fill(frame, values, rng)
    return text + '"' * (text.count('"') % 2)


def plant(rng, names=(), held_out=False, kind=None, person=None):
    """A random fact. names: of people, to be used now and then; held_out: in wordings that are
    never trained on; person: whom it is about, if it is about one."""
    kind = kind or rng.choice(HELD_KINDS if held_out and rng.random() < 0.1 else KINDS)
    source, statement = Slots(rng, names), rng.choice((held_out and kind.held_statements) or kind.statements)
    needed = sorted(set(slots(statement)).union(*(set(slots(q)) | {a} for a, q in kind.asks + kind.held_asks)))
    for _ in range(9):
        values = {name: source[name] for name in needed}
        values |= {"person": person} if person and "person" in values else {}
        if len(set(values.values())) == len(values):
            break
    text = framed(rng, fill(statement, values, rng), held_out)
    return Fact([(kind, values)], text, held_out)


def joined(rng, names=()):
    """Two or three facts in a row, often about one person."""
    about = Slots(rng, names).person()
    facts = [plant(rng, names, kind=kind, person=about) for kind in rng.sample(KINDS, rng.choice((2, 2, 3)))]
    text, pronoun = facts[0].statement, rng.choice(("He", "She"))
    for fact in facts[1:]:
        more = fact.statement
        if more.startswith(about + " ") and about in text:
            more = pronoun + more[len(about) :]
        link = rng.choice((" ", " ", "\n", ", and ", "; ", ", while ", ", but "))
        if link.isspace() or not text.endswith(".") or '"' in text + more:
            text += link if link.isspace() else " "
            text += more
        else:
            text = text[:-1] + link + (within(more) if more.split()[0] not in ("He", "She") else more.lower()[0] + more[1:])
    return Fact([part for fact in facts for part in fact.parts], text)


def several(rng, n, names=(), held_out=False):
    """So many facts for one document: some alone, some with others of their kind or about the same
    person, so that a question's key has to be matched."""
    facts, kind, person = [], None, None
    while len(facts) < n:
        if rng.random() < 0.5:
            kind = rng.choice(KINDS) if rng.random() < 0.5 else None
            person = Slots(rng, names).person() if rng.random() < 0.3 else None
        if held_out or rng.random() < 0.8:
            facts.append(plant(rng, names, held_out, kind, person))
        else:
            facts.append(joined(rng, names))
    return facts


def rephrased(rng, question):
    """The question as people type it: other openings, no capitals, no question mark, slips."""
    r = rng.random()
    if r < 0.1 and (m := re.match(r"(?:What|Who) (?:is|was) (the .*)\?", question)):
        start = rng.choice(("Tell me {}.", "Name {}.", "{}?", "Give me {}.", "Please name {}.", "Do you know {}?", "I would like to know {}."))
        question = start.format(m.group(1))
        question = question[0].upper() + question[1:]
    elif r < 0.16 and question.startswith("What is"):
        question = "What's" + question[7:]
    elif r < 0.24:
        inner = question[0].lower() + question[1:]
        start = ("According to the text, ", "Please tell me: ", "Can you say, ", "In the text, ", "I want to know: ", "Hello, ")
        question = rng.choice(start) + inner
    if rng.random() < 0.04 and (long := [m for m in re.finditer(r"\b[a-z]{5,}\b", question)]):
        at = rng.choice(long).start() + rng.randint(1, 3)
        question = question[:at] + question[at + 1] + question[at] + question[at + 2 :]
    if rng.random() < 0.06:
        question = question.lower()
    return question.rstrip("?.") if rng.random() < 0.06 else question


def ask(rng, fact, facts):
    """A question and its answer, such that no other of the facts fits; None if there is none."""
    for kind, values in rng.sample(fact.parts, len(fact.parts)):
        asks = (fact.held_out and kind.held_asks) or kind.asks
        for answer, question in rng.sample(asks, len(asks)):
            given = slots(question)
            rivals = (v for f in facts for k, v in f.parts if v is not values and k is kind)
            if not any(all(v[s] == values[s] for s in given) for v in rivals):
                question = fill(question, values, rng)
                return question if fact.held_out else rephrased(rng, question), values[answer]
    return None


def main():
    import sentencepiece

    import books

    parser = argparse.ArgumentParser(description="Make documents with one planted fact each.")
    parser.add_argument("books")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--tokens", type=int, default=8192, help="of the document with its question")
    parser.add_argument("--depth", type=float, default=50, help="of the fact, in percent")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", action="store_true", help="wordings that are not in the training")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    rng = random.Random(f"{args.seed} {args.tokens} {args.depth}")
    spm = sentencepiece.SentencePieceProcessor(model_file=args.tokenizer)
    shelf = "".join(rng.sample([b.text for b in books.read(args.books)], k=12)[i] for i in range(12))
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "questions.jsonl", "a") as lines:
        for i in range(args.count):
            fact = plant(rng, held_out=args.held_out)
            question, answer = ask(rng, fact, [fact])
            start = rng.randrange(len(shelf))
            text = (shelf + shelf)[start : start + 6 * args.tokens]
            spare = len(spm.encode(" " + fact.statement + ASK + question + ANSWER + " " + answer)) + 8
            ids = spm.encode(text[text.find("\n") + 1 :])[: args.tokens - spare]
            text = spm.decode(ids)
            ends = [m.end() for m in re.finditer(r"[.!?](?= [A-Z])", text)] or [len(text)]
            at = min(ends, key=lambda e: abs(e - len(text) * args.depth / 100))
            name = f"{args.tokens}-{args.depth:g}-{i:02}.txt"
            (args.out / name).write_text(text[:at] + " " + fact.statement + text[at:])
            record = {"file": name, "question": question, "answer": answer, "tokens": args.tokens, "depth": args.depth}
            print(json.dumps(record), file=lines)


if __name__ == "__main__":
    main()
