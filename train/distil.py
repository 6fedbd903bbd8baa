#!/usr/bin/env python3
"""Teach a model's weights CCA-Attention by the same weights with full attention.

    distil.py BASE.gguf OUT --books BOOKS.tar.xz --valid HELD-OUT.tar.xz [--answers DIR] [--only attention]

Student and teacher begin alike; the student's attention is CCA with sinks, and with --recall, in a share of the
steps, with so many tokens recalled, too (the choice has no gradient). The loss is the Kullback–Leibler divergence
of all next tokens' distributions, on rows of documents.py. With --yarn the student's RoPE is stretched, and rows
may be longer than the teacher was trained for: the teacher judges what it reaches, the text itself the rest.

OUT gets log.txt, checkpoint.pt (every two minutes; --resume goes on from it, as if nothing had happened), and
weights-0000N.safetensors of what was trained, in float16, each below 16 MB, for patch.py and --init.
"""
import argparse
import copy
import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

import batches
import books
import cca
import documents
import patch
import unpack

SHARD = 15_000_000  # bytes of a file of weights
STRIP = 8192  # tokens whose logits are there together


class Batches(Dataset):
    """Batch i depends on the seed and i alone: (rows, 2, length + 1), ids and whether they are of an answer.
    lengths: [(tokens of a row, share)]."""

    def __init__(self, rows, tokens, lengths, seed, first=0):
        self.rows, self.tokens, self.lengths, self.seed, self.first = rows, tokens, lengths, seed, first

    def __len__(self):
        return 10**9

    def __getitem__(self, i):
        rng = random.Random(f"{self.seed} {self.first + i}")
        sizes, shares = zip(*self.lengths)
        length = rng.choices(sizes, shares)[0]
        return torch.tensor([self.rows.row(rng, length) for _ in range(max(1, self.tokens // length))])


def judged(student, teacher, x, y):
    """Kullback–Leibler divergence of the student's distributions from the teacher's, by their last hidden states."""
    with torch.no_grad():
        wanted = teacher.logits(y).float().log_softmax(-1)
    return (wanted.exp() * (wanted - student.logits(x).float().log_softmax(-1))).sum(-1)


class Run:
    def __init__(self, args):
        self.args, self.out = args, Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        self.began, self.before, self.step = time.monotonic(), 0.0, 0
        self.teacher = unpack.load(args.base)
        self.reach = self.teacher.config.max_position_embeddings
        self.student = copy.deepcopy(self.teacher)
        if args.yarn != 1:
            longest = int(self.reach * args.yarn)
            stretched = {"yarn_factor": args.yarn, "yarn_original": self.reach, "max_position_embeddings": longest}
            self.student.config = replace(self.student.config, **stretched)
            for layer in self.student.layers:
                layer.config = self.student.config
        self.trained = self.choose(args.only)
        if args.init:
            self.put(patch.trained(args.init, self.student.config.head_dim)[0])
        self.teacher.to(self.device).requires_grad_(False)
        self.student.to(self.device)
        self.adam = torch.optim.AdamW(self.trained.values(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0, fused=self.device == "cuda")
        if args.resume and (self.out / "checkpoint.pt").exists():
            self.restore()
        self.judged = judged
        if self.device == "cuda":
            self.student.compile_parts()
            self.teacher.compile_parts()
            self.judged = torch.compile(judged, dynamic=False)
        count = sum(p.numel() for p in self.trained.values())
        self.log(f"{count} of {sum(p.numel() for p in self.student.parameters())} parameters, on {self.device}, step {self.step}")

    def choose(self, only):
        """{name: parameter} of those to train; the others are frozen."""
        for name, p in self.student.named_parameters():
            p.requires_grad_(only == "all" or ".self_attn." in name)
        return {name: p for name, p in self.student.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def put(self, weights):
        for name in weights.keys() & self.trained.keys():
            self.trained[name].copy_(weights[name])

    def log(self, text):
        line = f"{time.monotonic() - self.began:7.1f}s  {text}"
        print(line, flush=True)
        with open(self.out / "log.txt", "a") as file:
            print(line, file=file)

    def progress(self):
        if self.args.steps:
            return self.step / self.args.steps
        return (self.before + time.monotonic() - self.began) / (self.args.minutes * 60)

    def rate(self, progress):
        return self.args.lr * min(1, (self.step + 1) / self.args.warm_up) * max(0.0, 1 - progress)

    # --- the loss ---

    def hidden(self, ids, recall):
        a = self.args
        return self.student(ids, a.group_size, a.window_size, self.dtype, cca.Recall(a.sinks, recall, cores=not a.no_cores))

    def losses(self, rows, recall):
        """Of each token of rows (n, length + 1): (divergence within the teacher's reach, the text's own loss behind it)."""
        ids, n = rows[:, :-1], len(rows)
        x, length = self.hidden(ids, recall).view(n, ids.shape[1], -1), min(ids.shape[1], self.reach)
        with torch.no_grad():
            y = self.teacher(ids[:, :length], 1, 1, self.dtype)
        near = x[:, :length].reshape(n * length, -1)
        both = zip(near.split(STRIP), y.split(STRIP))
        divergence = [checkpoint(self.judged, self.student, self.teacher, a, b, use_reentrant=False) for a, b in both]
        behind, targets = x[:, length:].reshape(-1, x.shape[-1]), rows[:, length + 1 :].reshape(-1)
        both = zip(behind.split(STRIP), targets.split(STRIP)) if len(behind) else ()
        text = [checkpoint(self.likelihood, a, b, use_reentrant=False) for a, b in both]
        return torch.cat(divergence), torch.cat(text) if text else None

    def likelihood(self, x, targets):
        return F.cross_entropy(self.student.logits(x).float(), targets, reduction="none")

    def weighted(self, near, behind, answer):
        """The mean of all tokens' losses; those of answers, (n, length), count as --answer-weight says."""
        weight = torch.where(answer, self.args.answer_weight, 1.0)
        weights = weight[:, : self.reach].reshape(-1), weight[:, self.reach :].reshape(-1)
        total = (near * weights[0]).sum() + (0 if behind is None else (behind * weights[1]).sum())
        return total / weight.sum()

    # --- training ---

    def update(self, rows, recall, rate):
        rows = rows.to(self.device)
        near, behind = self.losses(rows[:, 0], recall)
        self.weighted(near, behind, rows[:, 1, 1:].bool()).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        text = near.new_zeros(()) if behind is None else behind.detach().mean()
        return torch.stack([near.detach().mean(), text, norm.to(near.dtype)])

    def train(self, rows, held_out):
        source = batches.loader(Batches(rows, self.args.batch, self.args.lengths, self.args.seed, self.step), self.args.workers)
        sums, counted, tokens, since, saved = 0, 0, 0, time.monotonic(), time.monotonic()
        self.evaluate(held_out)
        while (progress := self.progress()) < 1:
            batch = next(source)
            recalls = random.Random(f"{self.args.seed} recall {self.step}").random() < self.args.recall_share
            sums = sums + self.update(batch, self.args.recall if recalls else 0, self.rate(progress))
            self.step, counted, tokens = self.step + 1, counted + 1, tokens + batch[:, 0].numel()
            if self.step % self.args.every == 0:
                near, behind, norm = (sums / counted).tolist()
                speed = tokens / (time.monotonic() - since)
                done = f"step {self.step} progress {self.progress():.3f}"
                self.log(f"{done} divergence {near:.5f} text {behind:.4f} norm {norm:.3f} tok/s {speed:.0f}")
                if not math.isfinite(near + behind):
                    raise SystemExit("the loss is not a number")
                sums, counted, tokens, since = 0, 0, 0, time.monotonic()
            if time.monotonic() - saved > self.args.save_every:
                self.save()
                saved = since = time.monotonic()
                sums, counted, tokens = 0, 0, 0
        self.save()
        self.evaluate(held_out)

    def evaluate(self, rows):
        """Divergence and the student's perplexity over the teacher's on held-out rows of books. Gradients stay
        on: without them all would be compiled anew."""
        for length, recall in [(1024, 0), *((n, r) for n, _ in self.args.lengths for r in {0, self.args.recall})]:
            if length > self.reach:
                continue
            ratio, n = 0.0, max(1, self.args.batch // length)
            ids = torch.tensor([rows.plain(random.Random(f"{length} {i}"), length) for i in range(n)]).to(self.device)
            near = self.losses(ids, recall)[0].detach().mean().item()
            with torch.no_grad():
                targets = ids[:, 1:].reshape(-1)
                for model, sign in ((self.hidden(ids[:, :-1], recall), 1), (self.teacher(ids[:, :-1], 1, 1, self.dtype), -1)):
                    for a, b in zip(model.split(STRIP), targets.split(STRIP)):
                        ratio += sign * self.likelihood(a, b).double().sum().item() / len(targets)
            self.log(f"held out, {length} tokens, recall {recall}: divergence {near:.5f}, perplexity {100 * math.expm1(ratio):+.2f} %")

    # --- files ---

    def save(self):
        state = {"model": self.trained, "adam": self.adam.state_dict(), "step": self.step, "spent": self.before + time.monotonic() - self.began}
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").rename(self.out / "checkpoint.pt")
        shards, size = [{}], 0
        for name, p in self.trained.items():
            value = p.detach().to("cpu", torch.float16).contiguous()
            if size + value.nbytes > SHARD and shards[-1]:
                shards.append({})
                size = 0
            shards[-1][name] = value
            size += value.nbytes
        a = self.args
        about = {"group_size": a.group_size, "window_size": a.window_size, "sinks": a.sinks, "recall": a.recall, "cores": not a.no_cores}
        about |= {"yarn": a.yarn, "reach": self.reach, "step": self.step}
        for i, shard in enumerate(shards, 1):
            save_file(shard, self.out / f"weights-{i:05}.safetensors", metadata={"format": "pt", "cca": json.dumps(about)})
        self.log(f"saved at step {self.step}, progress {self.progress():.3f}")

    def restore(self):
        state = torch.load(self.out / "checkpoint.pt", map_location=self.device)
        self.put(state["model"])
        self.adam.load_state_dict(state["adam"])
        self.step, self.before = state["step"], state["spent"]


def lengths(text):
    """4096:0.4,8192:0.6"""
    return [(int(n), float(share or 1)) for n, _, share in (part.partition(":") for part in text.split(","))]


def parser():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("base", help="GGUF file of a Llama with a tied output and a byte-level BPE")
    p.add_argument("out", help="folder to write")
    p.add_argument("--books", required=True, help="tar.xz of books to learn from")
    p.add_argument("--valid", required=True, help="tar.xz of books held out")
    p.add_argument("--answers", help="folder of documents, questions and the model's answers, see documents.py")
    p.add_argument("--answer-weight", type=float, default=1, help="how much a token of an answer counts, where others count 1")
    p.add_argument("--records", type=float, default=0, help="share of the chats that are about records, see records.py")
    p.add_argument("--texts", help="tar file of other texts to learn from, a folder for each kind")
    p.add_argument("--texts-share", type=float, default=0.5, help="of the rows' text, with --texts")
    p.add_argument("--only", choices=("all", "attention"), default="attention", help="the parameters to train")
    p.add_argument("-g", "--group-size", type=int, default=16)
    p.add_argument("-w", "--window-size", type=int, default=1024)
    p.add_argument("--sinks", type=int, default=16, help="first tokens that stay raw")
    p.add_argument("--recall", type=int, default=0, help="tokens that a tile of queries recalls")
    p.add_argument("--recall-share", type=float, default=0.5, help="of the steps, with --recall")
    p.add_argument("--no-cores", action="store_true", help="what is not recalled is not seen")
    p.add_argument("--yarn", type=float, default=1, help="factor by which the student reaches further than the teacher")
    p.add_argument("--lengths", type=lengths, default="4096:0.4,8192:0.6", help="of rows, each with its share")
    p.add_argument("--batch", type=int, default=65536, help="tokens")
    p.add_argument("--minutes", type=float, default=18)
    p.add_argument("--steps", type=int, default=0, help="so many steps instead")
    p.add_argument("--lr", type=float, default=2e-4)
    p.add_argument("--warm-up", type=int, default=20, help="steps")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--workers", type=int, default=14, help="processes that make rows; 0: none")
    p.add_argument("--every", type=int, default=10, help="steps between lines of the log")
    p.add_argument("--save-every", type=float, default=120, help="seconds")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT, if there is one")
    p.add_argument("--init", help="begin with the weights of this OUT, or of a patch of BASE")
    return p


def main(argv=None):
    args = parser().parse_args(argv)
    if args.recall == 0:
        args.recall_share = 0
    tokenizer = unpack.tokenizer_of(args.base)
    template = documents.chat_template(unpack.template_of(args.base)) if unpack.template_of(args.base) else None
    answers = documents.answered(args.answers) if args.answers else ()
    others = documents.kinds(args.texts) if args.texts else ()
    rows = documents.Rows([b.text for b in books.read(args.books)], tokenizer, template, answers, args.records, others, args.texts_share)
    held_out = documents.Rows([b.text for b in books.read(args.valid)], tokenizer)
    run = Run(args)
    run.train(rows, held_out)
    run.log("done")


if __name__ == "__main__":
    main()
