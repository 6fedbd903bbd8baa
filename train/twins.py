#!/usr/bin/env python3
"""Full attention and CCA from a common beginning: twins.py --books B.tar.xz --valid V.tar.xz --tokenizer T -o DIR

The trunk learns to recall, with full attention on short rows. Each of BRANCHES goes on from it, weights
and optimiser, on the same batches for equally many steps; then all are measured on the same tokens of
the held-out books. DIR/NAME/ gets log.txt, checkpoint.pt, model/ and results.json; what is there
already is not made again, and an interrupted branch goes on. Several processes share a DIR, one on
each GPU. With --given full=FOLDER the weights of a branch come from elsewhere: what goes on from it then
has a fresh optimiser, a rate that rises in its first tenth, and the batches from number 0.
"""
import json
import random
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import batches
import default_model
import model as llama
from batches import ANSWER, TEXT
from default_model import Stage, matches, mean

TRUNK = [Stage(1.0, 1, [(1024, 1)])]
BRANCH = [
    Stage(0.15, 4, [(4096, 1)]),
    Stage(0.15, 8, [(8192, 1)]),
    Stage(0.70, 16, [(2048, 0.15), (8192, 0.45), (32768, 0.4)]),
]
MORE = [Stage(1.0, 16, BRANCH[-1].lengths)]
TINY = [Stage(0.3, 2, [(256, 1)]), Stage(0.7, 4, [(256, 0.5), (512, 0.5)])]
LENGTHS = {2048: 2, 8192: 4, 32768: 8, 131072: 8}  # measured ones, with the batches of questions for each
TINY_LENGTHS = {1024: 1, 2048: 1}
FACTS = 8  # in a document that is measured


@dataclass
class Branch:
    largest: int = 16  # groups grow up to it; 1: full attention
    window: int = 1024
    only: str = "all"  # parameters to train
    teacher: str = ""  # branch whose likelihoods are learned, too
    start: str = "trunk"
    times: float = 1  # so many times the steps of the others
    rate: float = 1  # learning rate at the start, relative to the trunk's
    answers: float = 1  # weight of answers in the loss; that of text is 1
    cost: float = 1  # seconds a step, about, relative to `cca`


BRANCHES = {
    "full": Branch(largest=1, cost=2.4),
    "cca": Branch(),
    "distilled": Branch(teacher="full", cost=1.9),
    "narrow": Branch(window=256, cost=0.95),
    "long": Branch(times=2.4, cost=2.4),
    "fine": Branch(largest=8, cost=1.1),
    "attention": Branch(only="attention", cost=0.9),
    # What goes on from `full`: with full attention, and with CCA plugged in.
    "more": Branch(largest=1, start="full", rate=0.3, answers=0.2, cost=2.2),
    "tuned": Branch(start="full", rate=0.3, answers=0.2),
    "taught": Branch(start="full", rate=0.3, answers=0.2, teacher="full", cost=1.7),
    "wide": Branch(start="full", rate=0.3, answers=0.2, window=2048, cost=1.1),
    "broad": Branch(start="full", rate=0.3, answers=0.2, window=4096, cost=1.2),
    "vast": Branch(start="full", rate=0.3, answers=0.2, window=8192, cost=1.4),
    "schooled": Branch(start="full", rate=0.3, answers=0.2, window=4096, teacher="more", cost=2),
    "slim": Branch(start="full", rate=0.3, answers=0.2, window=256),
    "asked": Branch(start="full", rate=0.3),
    "attending": Branch(start="full", rate=0.3, answers=0.2, only="attention"),
    # The same without the answers' loss: the questions are there, but only text is learned.
    "text": Branch(largest=1, start="full", rate=0.3, answers=0, cost=2.2),
    "text1024": Branch(start="full", rate=0.3, answers=0),
    "text2048": Branch(start="full", rate=0.3, answers=0, window=2048, cost=1.1),
    "text4096": Branch(start="full", rate=0.3, answers=0, window=4096, cost=1.2),
}


class Twins(default_model.Run):
    def __init__(self, args):
        super().__init__(args)
        self.lr = args.lr
        self.root, self.teacher, self.teachers, self.questions = self.out, None, {}, None
        self.lengths = TINY_LENGTHS if args.tiny else {n: LENGTHS[n] for n in args.lengths}
        for given in args.given:
            self.take(*given.split("=", 1))
        self.compare = torch.compile(compare, dynamic=False) if self.device.type == "cuda" else compare

    # --- one branch ---

    def take(self, name, folder):
        """A Hugging Face folder as a branch that is done; it has no results of its own."""
        if not self.done(name):
            shutil.copytree(folder, self.root / name / "model", dirs_exist_ok=True)
            (self.root / name / "results.json").write_text(json.dumps({"name": name, "measured": {}}))

    def begin(self, name):
        """Weights and optimiser as an interrupted run left them, else those that the branch starts from."""
        args, branch = self.args, BRANCHES.get(name, Branch(largest=1, start=""))
        self.out = self.root / name
        self.out.mkdir(exist_ok=True)
        self.window, self.group_size = branch.window, 16
        grown = min(branch.largest, 4 if args.tiny else 16)
        stages = TINY if args.tiny else BRANCH if branch.start == "trunk" else MORE
        self.stages = [Stage(s.share, min(s.group_size, grown), s.lengths) for s in stages] if branch.start else TRUNK
        if args.tiny:
            self.window, self.group_size = branch.window // 32, 4
            self.stages = self.stages if branch.start else [Stage(1, 1, [(256, 1)])]
        self.group_size = grown if grown > 1 else self.group_size
        args.attention = "cca" if grown > 1 else "full"
        args.steps = self.steps(branch)
        args.decay = {"": 1e-9, "trunk": args.branch_decay}.get(branch.start, 1)
        args.lr, args.answer_weight = self.lr * branch.rate, branch.answers
        self.choose(branch.only)
        own, first = self.out / "checkpoint.pt", self.root / branch.start
        self.step = self.first_step = self.before = 0
        if own.exists():
            self.restore()
        elif branch.start and not (first / "checkpoint.pt").exists():  # it was given
            self.model.load_state_dict(llama.load(first / "model").state_dict())
        elif branch.start:
            state = torch.load(first / "checkpoint.pt", map_location=self.device)
            self.model.load_state_dict(state["model"])
            self.step = self.first_step = state["step"]
            if branch.only == "all":
                for o, s in zip(self.optimisers, state["optimisers"]):
                    o.load_state_dict(s)
        self.teacher = self.teacher_of(branch.teacher) if branch.teacher else None
        self.log(f"{name}: {branch}, {args.steps} steps, progress {self.progress():.3f}")
        return branch

    def steps(self, branch):
        return round({"": self.args.trunk, "trunk": self.args.branch}.get(branch.start, self.args.more) * branch.times)

    def teacher_of(self, name):
        if name not in self.teachers:
            teacher = llama.load(self.root / name / "model", self.device).requires_grad_(False)
            if self.device.type == "cuda":
                teacher.compile_parts()
            self.teachers[name] = teacher
        return self.teachers[name]

    def objective(self, rows, kinds, group_size):
        """With a teacher most of the loss is the distance of likelihoods from its own."""
        if not self.teacher:
            return super().objective(rows, kinds, group_size)
        rows, kinds = rows.to(self.device, non_blocking=True), kinds.to(self.device, non_blocking=True).view(-1)
        ids, targets = rows[:, :-1], rows[:, 1:].reshape(-1).long()
        hidden, taught = self.model(ids, group_size, self.window, self.dtype, self.recall(group_size)), self.teacher(ids, dtype=self.dtype)
        nll, distance, right = self.compare(self.model, self.teacher, hidden, taught, targets)
        share, answer, text = self.args.teacher_share, kinds == ANSWER, kinds == TEXT
        loss = share * distance + (1 - share) * nll
        loss = mean(loss, text) + self.args.answer_weight * mean(loss, answer)
        return loss, mean(nll, text), mean(nll, answer), mean(right, answer)

    def evaluate(self, *args, **kwargs):
        """Not on the way: what is made on the way is to be quick."""

    # --- measuring: the same tokens and questions for all ---

    def perplexity(self, length, group_size):
        """Of all whole windows of the held-out books in a row: mean nats of each, and by position."""
        ids = self.valid.corpus.ids
        windows = ids[: len(ids) // length * length].reshape(-1, length).astype(np.int32)
        n, per_batch = len(windows), max(1, self.args.batch // length)
        windows = np.pad(windows, ((0, 0), (1, 0)), constant_values=1)
        nats = []
        for first in range(0, n, per_batch):
            rows = torch.from_numpy(windows[np.arange(first, first + per_batch) % n])
            kinds = torch.full((per_batch, length), TEXT, dtype=torch.uint8)
            nll = self.losses(rows, kinds, group_size)[3]
            nats.append(nll.detach().view(per_batch, length).double().cpu().numpy())
        nats = np.concatenate(nats)[:n]
        edges = [0] + [e for e in 2 ** np.arange(8, 18) if e < length] + [length]
        bands = {int(b): float(nats[:, a:b].mean()) for a, b in zip(edges, edges[1:])}
        return {"nats": [round(x, 5) for x in nats.mean(1).tolist()], "bands": bands}

    def answers(self, length, group_size):
        """[right, asked] of planted facts: in known wordings, in new ones, and those that open a document."""
        out = {}
        for made, rows, kinds, depths in self.questions:
            if rows.shape[1] != length + 1:
                continue
            right = self.losses(rows, kinds, group_size)[4].view(kinds.shape).cpu().numpy()
            for r, k, d in zip(right, kinds.numpy(), depths):
                hits = [h for h, depth in zip(matches(r, k), d) if made != "opening" or depth == 0]
                old = out.get(made, [0, 0])
                out[made] = [old[0] + sum(hits), old[1] + len(hits)]
        return out

    def measure(self, group_size, window):
        """All lengths with a group size and window."""
        self.window, out = window, {}
        if self.questions is None:
            tests = Questions(self.valid, self.args.batch, self.lengths)
            source = batches.loader(tests, self.args.workers)
            self.questions = [next(source) for _ in range(len(tests.items))]
        for length in self.lengths:
            text, facts = self.perplexity(length, group_size), self.answers(length, group_size)
            out[length] = {**text, **facts}
            shares = " ".join(f"{made} {right}/{asked}" for made, (right, asked) in facts.items())
            perplexity = np.exp(np.mean(text["nats"]))
            self.log(f"held out, {length} tokens, g {group_size}, s {window}: perplexity {perplexity:.3f}, facts {shares}")
        return out

    def carry_out(self, name):
        since, branch = time.monotonic(), self.begin(name)
        self.train()
        seconds = time.monotonic() - since
        settings = [(self.stages[-1].group_size, self.window)] if branch.start else []
        if branch.start and branch.largest == 1:  # and with CCA, untuned
            settings += [(self.group_size, window) for window in self.args.untuned or [self.window]]
        measured = {f"{g} {w}": self.measure(g, w) for g, w in settings}
        result = {"name": name, "branch": vars(branch), "steps": self.args.steps, "seconds": seconds, "measured": measured}
        (self.out / "results.part").write_text(json.dumps(result))
        (self.out / "results.part").rename(self.out / "results.json")
        self.log(f"{name}: done in {time.monotonic() - since:.0f} s, {seconds:.0f} s of it training")

    # --- all of them ---

    def done(self, name):
        return not name or (self.root / name / "results.json").exists()

    def claim(self, name):
        """Whether this process is the first that wants it."""
        try:
            (self.root / name).mkdir(exist_ok=True)
            (self.root / name / "claimed").touch(exist_ok=False)
            return True
        except FileExistsError:
            return False

    def too_long(self, branch):
        """Whether its end would come behind the deadline, as far as is known."""
        if not self.args.until:
            return False
        step = 0  # seconds of one, of a branch that costs 1
        for name in BRANCHES:
            if (self.root / name / "results.json").exists():
                known = json.loads((self.root / name / "results.json").read_text())
                if known.get("seconds"):
                    step = max(step, known["seconds"] / known["steps"] / BRANCHES[name].cost)
        return time.time() + step * self.steps(branch) * branch.cost + 30 * (step > 0) > self.args.until

    def work(self):
        names = list(self.args.branches)
        if any(BRANCHES[name].start == "trunk" for name in names):
            names.insert(0, "trunk")
        skipped = set()
        while left := [n for n in names if not self.done(n) and n not in skipped]:
            for name in left:
                branch = BRANCHES.get(name, Branch(start=""))
                if not (self.done(branch.start) and self.done(branch.teacher)):
                    continue
                if self.too_long(branch) or not self.claim(name):
                    skipped.add(name)
                    break
                try:
                    self.carry_out(name)
                except Exception:
                    self.log(f"{name} failed\n{traceback.format_exc()}")
                    skipped.add(name)
                break
            else:
                if self.args.until and time.time() > self.args.until:
                    break
                time.sleep(2)


def compare(student, teacher, hidden, taught, targets):
    """Of each token: negative log likelihood, distance (Kullback–Leibler) from the teacher, whether right."""
    own, other = student.logits(hidden).float().log_softmax(-1), teacher.logits(taught).float().log_softmax(-1)
    nll = F.nll_loss(own, targets, reduction="none")
    return nll, (other.exp() * (other - own)).sum(-1), own.detach().argmax(-1) == targets


class Questions(torch.utils.data.Dataset):
    """Batches of documents with questions: (which facts, ids, kinds, depths)."""

    def __init__(self, rows, tokens, lengths):
        self.rows, self.tokens = rows, tokens
        self.items = [(made, length, i) for length, n in lengths.items() for made in ("known", "new", "opening") for i in range(n)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        made, length, i = self.items[number]
        rng = random.Random(f"{made} {length} {i}")
        rows = [
            self.rows.row(rng, length, FACTS, False, made == "new", 1 if made == "opening" else 0)
            for _ in range(max(1, self.tokens // length))
        ]
        ids = torch.from_numpy(np.array([[1, *ids] for ids, *_ in rows], np.int32))
        return made, ids, torch.from_numpy(np.array([kinds for _, kinds, _ in rows])), [depths for *_, depths in rows]


def fastest(device):
    """The kernels for full attention, the fastest first: of those that agree with each other."""

    def run(kind, length):
        torch.manual_seed(1)
        made = [torch.randn(4, length, n, 64, device=device, dtype=torch.bfloat16, requires_grad=True) for n in (6, 2, 2)]
        with sdpa_kernel(kind):
            torch.cuda.synchronize()
            since = time.monotonic()
            out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in made), is_causal=True, enable_gqa=True)
            (out * made[0].detach().transpose(1, 2)).sum().backward()
            torch.cuda.synchronize()
        return time.monotonic() - since, [out.detach().float(), *(x.grad.float() for x in made)]

    times, wanted = {}, None
    for kind in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            got = run(kind, 8192)[1]
            wanted = wanted or got
            if max(((a - b).norm() / b.norm()).item() for a, b in zip(got, wanted)) < 0.02:
                times[kind] = min(run(kind, 32768)[0] for _ in range(4))
        except Exception as error:
            print(f"{kind}: {error}")
    print(times, flush=True)
    return sorted(times, key=times.get)


def main(argv=None):
    p = default_model.parser(__doc__.split("\n")[0])
    p.add_argument("--trunk", type=int, default=3000, help="steps")
    p.add_argument("--branch", type=int, default=2000, help="steps of each branch")
    p.add_argument("--more", type=int, default=500, help="steps of each branch that goes on from another")
    p.add_argument("--branches", nargs="*", choices=BRANCHES, default=list(BRANCHES), help="the order in which they are made")
    p.add_argument("--given", nargs="*", default=[], metavar="NAME=FOLDER", help="a branch or trunk that is done: its Hugging Face folder")
    p.add_argument("--lengths", nargs="*", type=int, choices=LENGTHS, default=list(LENGTHS), help="that are measured")
    p.add_argument("--untuned", nargs="*", type=int, help="windows with which full attention's weights are measured, too; else the branch's")
    p.add_argument("--branch-decay", type=float, default=0.7, help="share of a branch in which the learning rate falls to zero")
    p.add_argument("--teacher-share", type=float, default=0.8, help="of the loss, where there is a teacher")
    p.add_argument("--until", type=float, default=0, help="no branch is begun that would end behind it; seconds since 1970")
    args = p.parse_args(argv)
    run = Twins(args)
    if run.device.type == "cuda":
        with sdpa_kernel([*fastest(run.device), SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True):
            run.work()
    else:
        run.work()
    return run


if __name__ == "__main__":
    main()
