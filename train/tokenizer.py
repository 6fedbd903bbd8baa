#!/usr/bin/env python3
"""Train the tokenizer of the default model on the books: tokenizer.py BOOKS.tar.xz OUT.model

A BPE of SentencePiece. Text goes through it unchanged, newlines and runs of spaces too: no
normalisation, no space put in front (add_dummy_prefix is off), bytes where no piece fits.
SentencePiece learns line by line, so a newline is its byte piece <0x0A>.
"""
import argparse
import io

import sentencepiece

import books


def sample(path, every):
    """Every so many-th line with something in it."""
    lines = (line for book in books.read(path) for line in book.text.split("\n") if line.strip())
    return (line for i, line in enumerate(lines) if i % every == 0)


def train(path, vocab_size=4096, every=3, threads=1):
    """The bytes of the model file."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sample(path, every),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        add_dummy_prefix=False,
        character_coverage=0.9999,
        max_sentence_length=65536,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=threads,
        minloglevel=1,
    )
    return out.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("books")
    parser.add_argument("out")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--every", type=int, default=3, help="learn from every N-th line")
    args = parser.parse_args()
    model = train(args.books, args.vocab_size, args.every)
    with open(args.out, "wb") as file:
        file.write(model)
