"""Books as plain text out of a .tar.xz, and as token ids in one array.

Each book starts with the same header, which the questions use:

    # Title: A Study in Scarlet

    ## Author: Arthur Conan Doyle

    ## Year: 1887

    -------
"""
import os
import pickle
import re
import tarfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import sentencepiece

HEADER = re.compile(r"# Title: (.*)\n\n## Author: (.*)\n\n## Year: (.*)\n\n-------\n")
NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})?\b")


@dataclass
class Book:
    title: str
    author: str
    year: str
    text: str  # all of it, header included
    body: int  # where the header ends in text


def header(title, author, year):
    return f"# Title: {title}\n\n## Author: {author}\n\n## Year: {year}\n\n-------\n"


def read(path):
    """The books of a tar file in the order of their names."""
    with tarfile.open(path) as tar:
        files = {m.name: tar.extractfile(m).read().decode("utf-8").lstrip("\ufeff") for m in tar if m.isfile()}
    texts = [files[name] for name in sorted(files)]
    return [Book(*m.groups(), text, m.end()) for text in texts if (m := HEADER.match(text))]


@dataclass
class Corpus:
    """Books in tokens. A stop is a place behind the end of a sentence, where a token that begins
    with one space follows: a sentence with a space in front can be put in there, and the ids are
    those of the whole text. A name is what stands capitalised inside of a sentence."""

    ids: np.ndarray  # uint16; all books, an end token behind each
    starts: np.ndarray  # first token of each book, and the number of all tokens
    bodies: np.ndarray  # first token behind each book's header
    stops: np.ndarray
    lines: np.ndarray  # first tokens of lines
    name_at: np.ndarray
    name_of: np.ndarray  # index into names
    names: list
    headers: list  # (title, author, year)


_spm = None  # of a worker process


def _open(model):
    global _spm
    _spm = sentencepiece.SentencePieceProcessor(model_file=model)


def _encode(book):
    """Ids of header and of body, and the names of the body as (token, name)."""
    text = book.text[book.body :]
    cuts = [m.start() for m in re.finditer(r"\n(?=[^\n])", text)]  # what may be cut, and is where it is long
    parts, at = [], 0
    for cut in cuts[::32] + [len(text)]:
        if cut > at:
            parts.append(text[at:cut])
            at = cut
    head = _spm.encode(book.text[: book.body])
    encoded = _spm.encode(parts)
    ids = np.array([i for part in encoded for i in part], np.uint16)
    # A name's token is guessed from its place in the part: near enough to tell what a slice holds.
    names, first = [], 0
    for part, part_ids in zip(parts, encoded):
        for m in NAME.finditer(part):
            names.append((first + m.start() * len(part_ids) // len(part), m.group()))
        first += len(part_ids)
    return np.array(head, np.uint16), ids, names


def encode(books, model, processes=1):
    """The Corpus of books with a SentencePiece model file."""
    _open(model)
    longest = sorted(range(len(books)), key=lambda i: -len(books[i].text))
    if processes > 1:
        with get_context("fork").Pool(processes) as pool:
            done = pool.map(_encode, [books[i] for i in longest], chunksize=1)
    else:
        done = [_encode(books[i]) for i in longest]
    done = [d for _, d in sorted(zip(longest, done), key=lambda x: x[0])]

    eos, parts, starts, bodies, at, name_at, name_of, names = _spm.eos_id(), [], [0], [], 0, [], [], {}
    for head, ids, found in done:
        parts += [head, ids, [eos]]
        bodies.append(at + len(head))
        for token, name in found:
            name_at.append(bodies[-1] + token)
            name_of.append(names.setdefault(name, len(names)))
        at += len(head) + len(ids) + 1
        starts.append(at)
    ids = np.concatenate(parts).astype(np.uint16)
    pieces = [_spm.id_to_piece(i) for i in range(_spm.vocab_size())]
    spaced = np.array([len(p) > 1 and p[0] == "▁" and p[1] != "▁" for p in pieces])
    ends = np.array([p[-1] in ".!?" for p in pieces])
    newline = ids == _spm.piece_to_id("<0x0A>")
    return Corpus(
        ids,
        np.array(starts),
        np.array(bodies),
        1 + np.flatnonzero(ends[ids[:-1]] & spaced[ids[1:]]),
        1 + np.flatnonzero(newline[:-1] & ~newline[1:]),
        np.array(name_at, np.int64),
        np.array(name_of, np.int64),
        list(names),
        [(b.title, b.author, b.year) for b in books],
    )


def load(path, model, processes=1, cache=None):
    """The Corpus of a tar file; cache: a folder that keeps it, by the tar file's name."""
    kept = Path(cache) / f"{Path(path).name}.pickle" if cache else None
    if kept and kept.exists():
        return pickle.loads(kept.read_bytes())
    corpus = encode(read(path), str(model), processes)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(corpus))
        part.rename(kept)
    return corpus
