#!/usr/bin/env python3
"""Train the default model on books: default_model.py --books B.tar.xz --valid V.tar.xz --tokenizer T -o DIR

From short contexts with full attention over CCA with growing groups to 131,072 tokens, by the
table STAGES. Progress is counted in time (--minutes) or in steps (--steps). DIR gets log.txt,
checkpoint.pt, which `--resume` goes on from, and model/, a Hugging Face folder.
"""
import argparse
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import batches
import books
import cca
import model as llama
import optimiser
from batches import ANSWER, TEXT


@dataclass
class Stage:
    share: float  # of the whole run
    group_size: int
    lengths: list  # of rows: [(tokens, share of the batches)]
    recall: int = 0  # tokens behind the window that a tile of queries recalls


STAGES = [
    Stage(0.14, 1, [(1024, 1)]),
    Stage(0.08, 4, [(4096, 1)]),
    Stage(0.08, 8, [(8192, 1)]),
    Stage(0.30, 16, [(2048, 0.2), (8192, 0.7), (32768, 0.1)]),
    Stage(0.22, 16, [(2048, 0.1), (8192, 0.4), (32768, 0.5)]),
    Stage(0.18, 16, [(2048, 0.1), (8192, 0.3), (32768, 0.3), (131072, 0.3)]),
]
PLANS = {
    "default": STAGES,
    # More of it, from weights that a run has left.
    "more": [
        Stage(0.15, 16, [(1024, 0.4), (2048, 0.6)]),
        Stage(0.40, 16, [(2048, 0.3), (8192, 0.6), (32768, 0.1)]),
        Stage(0.25, 16, [(2048, 0.1), (8192, 0.4), (32768, 0.5)]),
        Stage(0.20, 16, [(2048, 0.15), (8192, 0.3), (32768, 0.35), (131072, 0.2)]),
    ],
    # The same with a wider window.
    "wider": [
        Stage(0.10, 16, [(2048, 1)]),
        Stage(0.40, 16, [(2048, 0.15), (8192, 0.65), (32768, 0.2)]),
        Stage(0.25, 16, [(2048, 0.1), (8192, 0.4), (32768, 0.5)]),
        Stage(0.25, 16, [(2048, 0.15), (8192, 0.3), (32768, 0.35), (131072, 0.2)]),
    ],
    # Small enough that full attention can be given the same batches.
    "twins": [
        Stage(0.22, 1, [(1024, 1)]),
        Stage(0.12, 4, [(4096, 1)]),
        Stage(0.12, 8, [(8192, 1)]),
        Stage(0.20, 16, [(8192, 1)]),
        Stage(0.34, 16, [(2048, 0.05), (8192, 0.1), (32768, 0.85)]),
    ],
    # From full attention to CCA at once, the paper's way.
    "plug-in": [Stage(1.0, 16, [(8192, 0.5), (32768, 0.5)])],
    # Full attention as long as it can be afforded; CCA comes last, and what it pools can be recalled.
    "recalled": [
        Stage(0.25, 1, [(1024, 1)]),
        Stage(0.25, 1, [(2048, 0.2), (8192, 0.8)]),
        Stage(0.20, 1, [(2048, 0.1), (8192, 0.4), (32768, 0.5)]),
        Stage(0.30, 16, [(2048, 0.1), (8192, 0.4), (32768, 0.5)], 512),
    ],
}
CONFIG = llama.Config()

# The same in small, to try the script out.
TINY_WINDOW = 32
TINY_STAGES = [Stage(0.4, 1, [(256, 1)]), Stage(0.3, 2, [(256, 0.5), (512, 0.5)]), Stage(0.3, 4, [(512, 1)])]
TINY_RECALL = 16
TINY_CONFIG = llama.Config(64, 128, 2, 4, 2, 16, max_position_embeddings=1024)

PLAIN = 0.3  # share of rows without questions
WARM_UP = 200  # steps
SHARD = 15 << 20  # bytes, so that the parts of the model are easily copied


class Run:
    def __init__(self, args):
        self.args = args
        self.began = time.monotonic()
        self.out = Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.window, self.stages, config = (args.window, PLANS[args.plan], CONFIG)
        if args.tiny:
            recall = TINY_RECALL if self.stages[-1].recall else 0
            self.window, config = TINY_WINDOW, TINY_CONFIG
            self.stages = [*TINY_STAGES[:-1], replace(TINY_STAGES[-1], recall=recall)]
        self.group_size, self.recalled = self.stages[-1].group_size, self.stages[-1].recall  # of the saved model
        if args.attention == "full":
            self.stages = [Stage(s.share, 1, s.lengths) for s in self.stages]
        read = lambda path: batches.Rows(books.load(path, args.tokenizer, max(1, args.workers), args.cache), args.tokenizer)
        self.rows, self.valid = read(args.books), read(args.valid)
        corpus = self.rows.corpus
        self.log(f"{len(corpus.headers)} books, {len(corpus.ids)} tokens; held out {len(self.valid.corpus.ids)} tokens")

        torch.manual_seed(args.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.model = llama.load(args.init) if args.init else llama.Llama(config)
        self.model.to(self.device)
        self.choose(args.only)
        self.step, self.first_step = 0, 0
        self.before = args.begin * self.budget()  # what earlier parts of the run took, in seconds or steps
        if args.resume and (self.out / "checkpoint.pt").exists():
            self.restore()
        if self.device.type == "cuda":
            self.model.compile_parts()
        count = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.log(f"{count} parameters to train on {self.device}, step {self.step}, progress {self.progress():.3f}")

    def choose(self, only):
        """The parameters to train, all or attention's, with a fresh optimiser."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(only == "all" or ".self_attn." in name)
        self.optimisers = optimiser.optimisers(self.model, self.args.lr, self.args.weight_decay)

    def log(self, text):
        line = f"{time.monotonic() - self.began:7.1f}s  {text}"
        print(line, flush=True)
        with open(self.out / "log.txt", "a") as file:
            print(line, file=file)

    # --- progress: in steps, if their number is given, else in seconds ---

    def budget(self):
        return self.args.steps or self.args.minutes * 60 - self.args.reserve

    def spent(self):
        new = self.step - self.first_step if self.args.steps else time.monotonic() - self.began
        return self.before + new

    def progress(self):
        return self.spent() / self.budget()

    def stage(self, progress):
        ends = np.cumsum([s.share for s in self.stages])
        return self.stages[min(int(np.searchsorted(ends, progress, "right")), len(self.stages) - 1)]

    def rate(self, progress):
        steps = min(WARM_UP, max(1, self.args.steps // 10)) if self.args.steps else WARM_UP
        return self.args.lr * min(1.0, (self.step + 1) / steps) * min(1.0, max(0.0, 1 - progress) / self.args.decay)

    # --- training ---

    def recall(self, group_size):
        """What is seen raw behind the window, with groups of the last stage's size recalled ones, too."""
        return cca.Recall(self.args.sinks * group_size, self.recalled if group_size == self.group_size else 0)

    def losses(self, rows, kinds, group_size):
        """Likelihood losses of text and of answers; and what was right, where it is an answer."""
        rows, kinds = rows.to(self.device, non_blocking=True), kinds.to(self.device, non_blocking=True).view(-1)
        hidden = self.model(rows[:, :-1], group_size, self.window, self.dtype, self.recall(group_size))
        nll, right = self.model.losses(hidden, rows[:, 1:].reshape(-1).long())
        text, answer = kinds == TEXT, kinds == ANSWER
        return mean(nll, text), mean(nll, answer), mean(right, answer), nll, right

    def objective(self, rows, kinds, group_size):
        """The loss to train on; of it the log gets losses of text and of answers, and what was right."""
        text, answer, accuracy, *_ = self.losses(rows, kinds, group_size)
        return text + self.args.answer_weight * answer, text, answer, accuracy

    def update(self, rows, kinds, group_size, rate):
        loss, text, answer, accuracy = self.objective(rows, kinds, group_size)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for o in self.optimisers:
            for group in o.param_groups:
                group["lr"] = rate
            o.step()
            o.zero_grad(set_to_none=True)
        return torch.stack([text.detach(), answer.detach(), accuracy, norm])

    def train(self):
        stage, source, sums, since = None, None, 0, time.monotonic()
        saved, tokens, counted = since, 0, 0
        while (progress := self.progress()) < 1:
            if self.stage(progress) is not stage:
                stage = self.stage(progress)
                made = batches.Batches(self.rows, self.args.batch, stage.lengths, self.args.seed, PLAIN, self.step)
                source = batches.loader(made, self.args.workers)
                self.log(f"stage: g {stage.group_size}, lengths {stage.lengths}")
            rows, kinds = next(source)
            sums = sums + self.update(rows, kinds, stage.group_size, self.rate(progress))
            self.step += 1
            tokens += kinds.numel()
            counted += 1
            if self.step % self.args.every == 0:
                text, answer, accuracy, norm = (sums / counted).tolist()
                now = time.monotonic()
                self.log(
                    f"step {self.step} progress {self.progress():.3f} g {stage.group_size} rate {self.rate(progress):.2e} text {text:.4f} "
                    f"answer {answer:.4f} right {accuracy:.3f} norm {norm:.2f} tok/s {tokens / (now - since):.0f}"
                )
                if text != text:
                    raise SystemExit("the loss is not a number")
                sums, tokens, counted, since = 0, 0, 0, now
            if time.monotonic() - saved > self.args.save_every:
                for length, _ in stage.lengths:
                    self.evaluate(length, stage.group_size, 1)
                self.save()
                saved = since = time.monotonic()
                sums, tokens, counted = 0, 0, 0
        self.save()

    # --- evaluation: on the held-out books, greedy answers (each token the likeliest one) ---

    def evaluate(self, length, group_size, n, detail=False, held_out=False):
        """Perplexity of text and exact matches of planted facts over n batches of each, which depend
        on the length alone; held_out: of facts in wordings never trained on. Gradients stay on: without
        them all would be compiled anew."""
        rng, per_batch = random.Random(length), max(1, self.args.batch // length)
        nll, hits, depths = np.zeros(length), [], []
        for ask in [False] * (0 if held_out else n) + [True] * n:
            made = [self.valid.row(rng, length, 8, False, held_out) if ask else self.valid.plain(rng, length) for _ in range(per_batch)]
            rows = np.array([[1, *m[0]] for m in made], np.int32)
            kinds = np.array([m[1] for m in made])
            *_, losses, right = self.losses(torch.from_numpy(rows), torch.from_numpy(kinds), group_size)
            if ask:
                hits += [h for r, k in zip(right.view(kinds.shape).cpu().numpy(), kinds) for h in matches(r, k)]
                depths += [d for m in made for d in m[2]]
            else:
                nll += losses.detach().view(kinds.shape).double().mean(0).cpu().numpy() / n
        text = f"held out, {length} tokens, g {group_size}: "
        if held_out:
            return self.log(f"{text}facts in new wordings {np.mean(hits):.3f} of {len(hits)}")
        text += f"perplexity {np.exp(nll.mean()):.3f}, facts {np.mean(hits):.3f} of {len(hits)}"
        if detail:
            edges = [0] + [e for e in 2 ** np.arange(10, 18) if e < length] + [length]
            text += "; perplexity by position " + " ".join(f"{b}: {np.exp(nll[a:b].mean()):.2f}" for a, b in zip(edges, edges[1:]))
            fifth = np.minimum((np.array(depths) * 5).astype(int), 4)
            text += "; facts by depth " + " ".join(f"{np.mean(np.array(hits)[fifth == f]):.2f}" for f in range(5) if (fifth == f).any())
        self.log(text)

    def finish(self):
        last = self.stages[-1]
        for group_size in dict.fromkeys([last.group_size, 1, self.group_size]):
            own = group_size == last.group_size
            for length, _ in last.lengths:
                if not own and length > 32768:
                    continue
                n = 6 if self.args.plan in ("twins", "plug-in") else max(2, 16 * length // self.args.batch)
                self.evaluate(length, group_size, n, True)
                if own:
                    self.evaluate(length, group_size, n, held_out=True)

    # --- files ---

    def save(self):
        state = {
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "step": self.step,
            "spent": self.spent(),
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").rename(self.out / "checkpoint.pt")
        model, tuned = self.out / "model", self.args.attention == "cca"
        llama.save(model, self.model, self.group_size, self.window, self.args.tokenizer, torch.float16, SHARD, tuned, self.recall(self.group_size))
        self.log(f"saved at step {self.step}, progress {self.progress():.3f}")

    def restore(self):
        state = torch.load(self.out / "checkpoint.pt", map_location=self.device)
        self.model.load_state_dict(state["model"])
        for o, s in zip(self.optimisers, state["optimisers"]):
            o.load_state_dict(s)
        self.step, self.before = state["step"], state["spent"]
        self.first_step = self.step


def mean(x, mask):
    return (x * mask).sum() / mask.sum().clamp(min=1)


def matches(right, kinds):
    """Whether each answer of a row is right in all of its tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kinds == ANSWER, [0]])))
    return [bool(right[a:b].all()) for a, b in zip(edges[::2], edges[1::2])]


def arguments(argv=None):
    return parser(__doc__.split("\n")[0]).parse_args(argv)


def parser(description):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--books", required=True, help="tar.xz of books to learn from")
    p.add_argument("--valid", required=True, help="tar.xz of books held out")
    p.add_argument("--tokenizer", required=True, help="SentencePiece model")
    p.add_argument("-o", "--out", required=True)
    p.add_argument("--cache", help="folder that keeps the encoded books for the next run")
    p.add_argument("--plan", choices=PLANS, default="default", help="which stages")
    p.add_argument("--attention", choices=("cca", "full"), default="cca", help="full: the same batches with full attention")
    p.add_argument("--only", choices=("all", "attention"), default="all", help="the parameters to train; attention: q, k, v and o")
    p.add_argument("--window", type=int, default=256, help="of CCA")
    p.add_argument("--sinks", type=int, default=1, help="first groups that stay raw")
    p.add_argument("--minutes", type=float, default=20, help="for everything, the last evaluation included")
    p.add_argument("--reserve", type=float, default=40, help="seconds of them kept for the last evaluation")
    p.add_argument("--steps", type=int, default=0, help="so many steps instead")
    p.add_argument("--batch", type=int, default=131072, help="tokens")
    p.add_argument("--lr", type=float, default=5e-3)
    p.add_argument("--decay", type=float, default=0.5, help="share of the run in which the learning rate falls to zero")
    p.add_argument("--weight-decay", type=float, default=0.2)
    p.add_argument("--answer-weight", type=float, default=1.0, help="of the loss of answers; that of text is 1")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--workers", type=int, default=14, help="processes that make batches; 0: none")
    p.add_argument("--every", type=int, default=50, help="steps between lines of the log")
    p.add_argument("--save-every", type=float, default=120, help="seconds")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder, if there is one")
    p.add_argument("--init", help="begin with the weights of this folder")
    p.add_argument("--begin", type=float, default=0, help="where in the run to begin, 0 to 1")
    p.add_argument("--tiny", action="store_true", help="a very small model and short texts")
    return p


if __name__ == "__main__":
    run = Run(arguments())
    run.train()
    run.finish()
    run.log("done")
