"""Training rows: pieces of books, many with planted facts and with questions at their end.

A row is a start token and exactly `length` more. Each of those is marked with what its loss
counts as: NOTHING (planted facts, questions), TEXT, or ANSWER. A batch depends on the seed and
its number alone, so a resumed run sees the same ones.
"""
import random
import re

import numpy as np
import sentencepiece
import torch

import books
import questions

NOTHING, TEXT, ANSWER = 0, 1, 2
OPENING = 0.15  # share of the documents that begin with a fact


def wordings(text):
    return text.split("|")


# What else than planted facts is asked for: the book's header, names in it, what follows a quotation.
TITLE = wordings("What is the title of the book?|What is the title?|Which book is this?|What is this book called?")
AUTHOR = wordings("Who is the author of the book?|Who wrote this book?|Who is the author?|Who wrote it?|By whom is the book?")
YEAR = wordings("In which year was the book published?|When was the book published?|What year is the book from?")
WROTE = wordings("Who wrote {0}?|Who is the author of {0}?|By whom is {0}?")
WHEN = wordings("When was {0} published?|In which year was {0} published?|From which year is {0}?")
NAMES = wordings("Which of these names appears in the text: {0}?|Which of these does the text mention: {0}?|Who of these is mentioned: {0}?")
QUOTE = wordings('How does this go on: "{0}"?|What follows "{0}"?|Which words follow "{0}"?|Continue the quotation: "{0}"')
SPEAKER = wordings('Who said "{0}"?|Who spoke the words "{0}"?|Whose words are "{0}"?|By whom is it said: "{0}"?')
MISSING = wordings('What is missing here: "{0}"?|Fill in the gap: "{0}"|Which word belongs in "{0}"?|Complete: "{0}"')
SPEECH = re.compile(r'"([^"\n]{15,90})[,.!?]" (?:said|asked|cried|replied|answered|exclaimed|remarked) ([A-Z][a-z]{2,}(?: [A-Z][a-z]+)?)\b')
SENTENCE = re.compile(r'(?<=[.!?] )([A-Z][^.!?"\n]{30,140}\.)')
BLANK = re.compile(r"\b(?!M(?:rs|iss|r)\b)(?:[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})?|1[0-9]{3}|[0-9]{2,})\b")


class Rows:
    """Makes rows out of a books.Corpus."""

    def __init__(self, corpus, tokenizer):
        self.corpus = corpus
        self.spm = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
        self.newline_id = self.spm.piece_to_id("<0x0A>")
        self.asking = self.encode(questions.ASK)
        self.asking_joined = self.encode(questions.ASK.rstrip(" "))
        self.answering = self.encode(questions.ANSWER)

    def encode(self, text):
        return np.array(self.spm.encode(text), np.uint16)

    def row(self, rng, length, n_facts=None, extras=True, held_out=False, opening=OPENING):
        """A row with questions: (ids, kinds, depths of the asked facts in the document). n_facts:
        so many, all asked; without it a random number, and extras: questions of other kinds;
        held_out: wordings of facts and questions that are never trained on; opening: how likely the first
        fact opens the document, where it shares a group with the start token."""
        facts = questions.several(rng, n_facts or self.how_many(rng, length), self.some_names(rng), held_out)
        planted = [self.fact(rng, fact, i == 0 and rng.random() < opening) for i, fact in enumerate(facts)]
        sizes = np.cumsum([len(ids) for ids, *_ in planted])
        # So that half of the row is the book's; where their number is given, as many as leave room to ask.
        fit = max(1, int(np.searchsorted(sizes, length // 2 if n_facts else length // 4)))
        facts, planted = facts[:fit], planted[:fit]
        start = self.start(rng, length)
        asked = [(i, *found) for i, fact in enumerate(facts) if (found := questions.ask(rng, fact, facts))]
        if extras:
            asked = [a for a in asked if rng.random() < 0.85] or asked
        document_of = self.headers(rng, start, length)
        if extras:
            asked += self.extras(rng, start, length // 2, document_of)
        rng.shuffle(asked)

        room, tail, of = length // 2 - sum(len(ids) for ids, *_ in planted), [], []
        for i, question, answer in asked:
            ids = self.answered(rng, question, answer)
            if sum(len(x) for x, _ in tail) + len(ids[0]) > room and tail:
                break
            tail.append(ids)
            of.append(i)
        size = length - sum(len(ids) for ids, _ in tail) - sum(len(ids) for ids, *_ in planted)
        if size < 0:  # a short row whose only fact and question are long ones
            return *self.plain(rng, length), []
        document = self.document(rng, start, size, document_of)
        parts, depths = self.plant(rng, document, planted)
        ids, kinds = (np.concatenate(x) for x in zip(*parts, *tail))
        return ids, kinds, [depths[i] if i is not None else None for i in of]

    def plain(self, rng, length):
        """A row of text alone: (ids, kinds)."""
        start = self.start(rng, length)
        return self.corpus.ids[start : start + length], np.full(length, TEXT, np.uint8)

    def how_many(self, rng, length):
        """Facts for a document: 11 in 1K, 38 in 8K, 135 in 128K at most."""
        most = max(2, round(1.3 * length**0.4 - 10))
        return most if rng.random() < 0.5 else max(1, round(most ** rng.random()))

    def some_names(self, rng):
        names = self.corpus.names
        return [rng.choice(names)] if names else []

    def start(self, rng, length):
        """Where a piece begins: a line, or a book, but not so often that the first pages of the
        books are seen many times more than the rest."""
        c = self.corpus
        latest = max(0, len(c.ids) - length - 256)
        heads = int(np.searchsorted(c.starts[:-1], latest, "right"))
        if heads and rng.random() < min(0.2, 2 * heads * length / len(c.ids)):
            return int(c.starts[rng.randrange(heads)])
        line = int(np.searchsorted(c.lines, rng.randint(0, latest), "right")) - 1
        return int(c.lines[line]) if line >= 0 else 0

    def headers(self, rng, start, length):
        """{book: (title, author, year)} of the books that begin in the piece. Half of them are made
        up, so that they have to be read."""
        c, out = self.corpus, {}
        first, last = np.searchsorted(c.starts[:-1], (start, start + length // 2))
        for book in range(int(first), int(last)):
            title, author, year = c.headers[book]
            if rng.random() < 0.5:
                s = questions.Slots(rng)
                if rng.random() < 0.5:
                    title = f"The {s.pick('adjective').title()} {s.pick('thing').title()}"
                author, year = f"{s.pick('first')} {s.pick('last')}", s.year()
            out[book] = title, author, year
        return out

    def document(self, rng, start, size, headers):
        """The piece as [(ids, kinds, stops, lines)] of exactly size tokens: stops and lines are
        places for facts. Half of the pieces that begin within a book end at the end of a line."""
        c = self.corpus
        if not headers and rng.random() < 0.5:
            line = int(c.lines[max(0, np.searchsorted(c.lines, start + size, "right") - 1)])
            start = max(0, min(start, line - size))
        out, book = [], int(np.searchsorted(c.starts, start, "right")) - 1

        def add(ids, kind, first=None):
            nonlocal size
            ids = ids[:size]
            places = [np.zeros(0, np.int64)] * 2
            if first is not None:
                places = [x[slice(*np.searchsorted(x, (first, first + len(ids))))] - first for x in (c.stops, c.lines)]
            out.append((ids, np.full(len(ids), kind, np.uint8), *places))
            size -= len(ids)

        while size:
            if start == c.starts[book] and book in headers:
                made_up = headers[book] != c.headers[book]
                add(self.encode(books.header(*headers[book])), NOTHING if made_up else TEXT)
                start = int(c.bodies[book])
            stop = min(int(c.starts[book + 1]), start + size)
            add(c.ids[start:stop], TEXT, start)
            start, book = stop, (book + 1) % len(c.headers)
            start = start if book else 0
        return out

    def fact(self, rng, fact, opens):
        """(ids, whether they stand as a paragraph of their own, whether as the document's first)."""
        alone = rng.random() < 0.4 or opens
        return self.encode(f"{fact.statement}\n\n" if alone else f" {fact.statement}"), alone, opens

    def plant(self, rng, document, planted):
        """The document with facts at random places: [(ids, kinds)], and the depth of each fact."""
        ids, kinds = (np.concatenate(x) for x in list(zip(*document))[:2])
        begin = np.cumsum([0] + [len(d[0]) for d in document])
        stops, lines = (np.concatenate([d[n] + b for d, b in zip(document, begin)]) for n in (2, 3))
        places = []
        for i, (_, alone, opens) in enumerate(planted):
            where, wanted = lines if alone else stops, rng.randint(0, len(ids))
            if opens:
                places.append((0, i))
                continue
            near = int(np.searchsorted(where, wanted))
            places.append((int(where[min(near, len(where) - 1)]) if len(where) else len(ids), i))
        parts, at, depths = [], 0, {}
        for place, i in sorted(places):
            fact = planted[i][0]
            parts += [(ids[at:place], kinds[at:place]), (fact, np.full(len(fact), NOTHING, np.uint8))]
            at, depths[i] = place, place / len(ids)
        return parts + [(ids[at:], kinds[at:])], depths

    def answered(self, rng, question, answer):
        """(ids, kinds) of a question with its answer. Now and then scaffold and question are
        tokenised in one go, as other programs do it."""
        apart = rng.random() < 0.8
        ask = [self.asking, self.encode(question)] if apart else [self.asking_joined, self.encode(" " + question)]
        answer = self.encode(f" {answer}\n")
        ids = np.concatenate([*ask, self.answering, answer])
        kinds = np.full(len(ids), NOTHING, np.uint8)
        kinds[-len(answer) :] = ANSWER
        return ids, kinds

    def extras(self, rng, start, length, headers):
        """Questions that the books themselves answer, as (None, question, answer)."""
        out = []
        for title, author, year in headers.values():
            asks = [(WROTE, author), (WHEN, year)]
            if len(headers) == 1:
                asks += [(TITLE, title), (AUTHOR, author), (YEAR, year)]
            out += [(rng.choice(words).format(title), answer) for words, answer in rng.sample(asks, 2)]
        for _ in range(1 + length // 2048 if length > 200 else 0):  # a name's place is known roughly
            if rng.random() < 0.4:
                out += self.name_question(rng, start, length)
            if rng.random() < 0.6:
                out += self.quote_question(rng, start, length)
            if rng.random() < 0.8:
                out += self.prose_question(rng, start, length)
        return [(None, question, answer) for question, answer in out]

    def name_question(self, rng, start, length):
        c = self.corpus
        a, b = (int(x) for x in np.searchsorted(c.name_at, (start + length // 8, start + length * 7 // 8)))
        around = np.searchsorted(c.name_at, (start - length, start + 2 * length))
        here = set(c.name_of[slice(*around)].tolist())
        others = [n for n in (rng.randrange(len(c.names)) for _ in range(8) if c.names) if n not in here]
        if a >= b or len(others) < 2:
            return []
        right = c.names[c.name_of[rng.randrange(a, b)]]
        choice = [right] + [c.names[n] for n in others[: rng.randint(1, 2)]]
        rng.shuffle(choice)
        return [(rng.choice(NAMES).format(", ".join(choice[:-1]) + " or " + choice[-1]), right)]

    def quote_question(self, rng, start, length):
        c = self.corpus
        a, b = (int(x) for x in np.searchsorted(c.stops, (start + length // 8, start + length * 7 // 8)))
        if a >= b:
            return []
        at = int(c.stops[rng.randrange(a, b)])
        text = self.spm.decode(c.ids[at : at + 32].tolist()).strip()
        parts, known, asked = text.split(" "), rng.randint(5, 9), rng.randint(1, 4)
        if any(x in text for x in ("\n", '"', "\ufffd")) or "" in parts or len(parts) <= known + asked:
            return []
        answer = " ".join(parts[known : known + asked]).rstrip(".,;:!?-")
        return [(rng.choice(QUOTE).format(" ".join(parts[:known])), answer)] if answer else []

    def prose_question(self, rng, start, length):
        """Who says something, or what is missing in a sentence: a name, a number or a year."""
        c, at = self.corpus, start + rng.randint(length // 8, length // 2)
        text = self.spm.decode(c.ids[at : max(at, min(at + 300, start + length * 5 // 8))].tolist())
        found = []
        for m in SPEECH.finditer(text):
            found.append((rng.choice(SPEAKER).format(m.group(1)), m.group(2)))
        for m in SENTENCE.finditer(text):
            for word in BLANK.finditer(m.group(1), 12):
                missing = m.group(1)[: word.start()] + "___" + m.group(1)[word.end() :]
                found.append((rng.choice(MISSING).format(missing), word.group()))
        found = [(q, a) for q, a in found if "\ufffd" not in q and "\n" not in q]
        return [rng.choice(found)] if found else []


class Batches(torch.utils.data.Dataset):
    """Batch number n: (ids (rows, 1 + length) int32, kinds (rows, length) uint8). lengths: [(length,
    share)], one of which each batch has; tokens: of a batch; plain: share of rows without questions."""

    def __init__(self, rows, tokens, lengths, seed, plain=0.3, first=0, bos=1):
        self.rows, self.tokens, self.lengths, self.seed = rows, tokens, lengths, seed
        self.plain, self.first, self.bos = plain, first, bos

    def __len__(self):
        return 10**9

    def __getitem__(self, number):
        rng = random.Random(f"{self.seed} {self.first + number}")
        length = rng.choices(*zip(*self.lengths))[0]
        n = max(1, self.tokens // length)
        ids, kinds = np.empty((n, 1 + length), np.int32), np.empty((n, length), np.uint8)
        for i in range(n):
            made = self.rows.plain if rng.random() < self.plain else self.rows.row
            ids[i, 0] = self.bos
            ids[i, 1:], kinds[i] = made(rng, length)[:2]
        return torch.from_numpy(ids), torch.from_numpy(kinds)


def loader(batches, workers):
    """Iterates over the batches in order, made by so many processes."""
    return iter(
        torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            shuffle=False,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            multiprocessing_context="fork" if workers else None,
        )
    )
