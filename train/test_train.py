"""Models, rows and runs. Run with: python3 -m pytest train

Uses the float64 reference and the books beside the repository, where they are; else those tests
are skipped."""
import io
import json
import random
import tarfile

import numpy as np
import pytest
import sentencepiece
import torch

import batches
import books
import default_model
import model as llama
import optimiser
import questions
import twins
from oracle import reference

TEXT = (
    "Nothing moved in the street but {a} and the rain. He thought of {b}, and then of nothing. Why had she come? "
    "It was {c} who knew; nobody asked.\n\nThe lamp went out. They waited, as {a} had said, for the morning.\n\n"
)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """A tar of small books and a tokenizer of it: (books.tar.xz, tokenizer.model)."""
    folder, rng = tmp_path_factory.mktemp("shelf"), random.Random(5)
    with tarfile.open(folder / "books.tar.xz", "w:xz") as tar:
        for i in range(6):
            slots = questions.Slots(rng)
            body = "".join(TEXT.format(a=slots.person(), b=slots.thing(), c=slots.person()) for _ in range(60))
            data = (books.header(f"Book {i}", slots.person(), slots.year()) + body).encode()
            info = tarfile.TarInfo(f"{i}.txt")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for b in books.read(folder / "books.tar.xz") for line in b.text.split("\n") if line),
        model_writer=out, model_type="bpe", vocab_size=512, byte_fallback=True, split_digits=True, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        add_dummy_prefix=False, pad_id=-1,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    return folder / "books.tar.xz", folder / "tokenizer.model"


@pytest.fixture(scope="session")
def rows(shelf):
    return batches.Rows(books.encode(books.read(shelf[0]), str(shelf[1])), shelf[1])


@pytest.fixture
def small(tmp_path, shelf):
    """A saved model with random weights: (model, folder)."""
    torch.manual_seed(3)
    net = llama.Llama(llama.Config(32, 64, 2, 4, 2, 8, 512, max_position_embeddings=2048))
    for p in net.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.2)
    llama.save(tmp_path / "m", net, 4, 16, shelf[1])
    return net, tmp_path / "m"


IDS = torch.tensor([1] + [(i * 37) % 500 + 3 for i in range(89)])


@pytest.mark.parametrize("g,s", [(None, None), (4, 16), (8, 8)])
def test_model_equals_the_reference(small, g, s):
    net, folder = small
    wanted = reference().load_hf(folder).forward(IDS.numpy(), g, s)
    with torch.no_grad():
        logits = net.logits(net(IDS[None], g or 1, s or 1))
    np.testing.assert_allclose(logits.numpy(), wanted, atol=2e-4 * np.abs(wanted).max())


def test_model_equals_transformers(small):
    transformers = pytest.importorskip("transformers")
    net, folder = small
    other = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(net.logits(net(IDS[None])), other(IDS[None]).logits[0], atol=1e-4, rtol=1e-4)


def test_yarn_equals_transformers(small, tmp_path):
    transformers = pytest.importorskip("transformers")
    net, _ = small
    net.config.yarn_factor, net.config.yarn_original, net.config.rope_theta = 4.0, 64, 100.0
    llama.save(tmp_path / "yarn", net, 4, 16)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "yarn", dtype=torch.float32)
    with torch.no_grad():
        wanted, plain = other(IDS[None]).logits[0], net.logits(net(IDS[None]))
        torch.testing.assert_close(plain, wanted, atol=1e-4, rtol=1e-4)
        net.config.yarn_factor, net.tables = 1, {}
        assert (net.logits(net(IDS[None])) - wanted).abs().max() > 1e-2


def test_shards_hold_the_same_weights(small, tmp_path, shelf):
    net, folder = small
    llama.save(tmp_path / "shards", net, 4, 16, shelf[1], shard_bytes=20000)
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1 and not (tmp_path / "shards" / "model.safetensors").exists()
    for a, b in ((llama.load(tmp_path / "shards"), net), (llama.load(folder), net)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert json.loads((folder / "config.json").read_text())["cca"] == {
        "group_size": 4, "window_size": 16, "tuned": True, "chat_template": "plain", "sinks": 0, "recall": 0,
    }  # fmt: skip


def test_orthogonalise():
    x = torch.randn(3, 24, 16, generator=torch.Generator().manual_seed(1))
    for y in (optimiser.orthogonalise(x), optimiser.orthogonalise(x.transpose(1, 2))):
        singular = torch.linalg.svdvals(y)
        assert singular.min() > 0.3 and singular.max() < 1.3


def test_every_statement_has_the_slots_that_are_asked_for():
    assert len(questions.KINDS) > 150 and len(questions.HELD_KINDS) > 5
    for kind in questions.KINDS + questions.HELD_KINDS:
        asks = kind.asks + kind.held_asks
        needed = {s for answer, question in asks for s in [answer, *questions.slots(question)]} - {"did", "do"}
        for statement in kind.statements + kind.held_statements:
            assert needed <= set(questions.slots(statement)), statement


def test_a_question_fits_one_fact_only():
    rng = random.Random(7)
    for _ in range(50):
        facts = [questions.plant(rng) for _ in range(60)]
        seen = {}
        for fact in facts:
            if found := questions.ask(rng, fact, facts):
                assert seen.setdefault(found[0], fact) is fact
                assert found[1].lower() in fact.statement.lower()


def test_held_out_wordings_are_never_trained():
    rng = random.Random(11)
    trained = {id(kind) for kind in questions.KINDS}
    for fact in questions.several(rng, 400):
        for kind, values in fact.parts:
            assert id(kind) in trained
            assert not any(questions.fill(s, values, rng) in fact.statement for s in kind.held_statements if "[" not in s), fact
    for fact in questions.several(rng, 200, held_out=True):
        [(kind, values)] = fact.parts
        shapes = (id(kind) in trained and kind.held_statements) or kind.statements  # some kinds hold back questions only
        sought = {questions.within(questions.fill(s, values, random.Random(i))) for s in shapes for i in range(400)}
        told = questions.within(fact.statement)
        assert any(s.rstrip(".") in told for s in sought), fact
        if found := questions.ask(rng, fact, [fact]):
            asks = kind.held_asks or kind.asks
            assert found[0] in {questions.fill(q, values, random.Random(i)) for _, q in asks for i in range(20)}


def test_choices_and_spaces():
    values = {"place": "the mill"}
    filled = {questions.fill("[The|A] code [|of {place} ]opens.", values, random.Random(i)) for i in range(20)}
    assert filled == {f"{a} code {b}opens." for a in ("The", "A") for b in ("", "of the mill ")}
    assert questions.fill("{The place} is [old |]now.", values, random.Random(1)).startswith("The mill is ")
    assert questions.alternatives("a [b|c]|d") == ["a [b|c]", "d"]


def test_questions_about_prose(rows):
    """The answer stands in the text, and what is asked does too."""
    rng, seen = random.Random(4), set()
    text = rows.spm.decode([int(i) for i in rows.corpus.ids if i > 2])
    for _ in range(200):
        for question, answer in rows.prose_question(rng, rng.randrange(len(rows.corpus.ids) - 2000), 1000):
            quoted = question.split('"')[1]
            seen.add("___" in quoted)
            assert quoted.replace("___", answer) in text
    assert True in seen


def test_reading_keeps_every_byte(shelf, rows):
    text = "".join(b.text for b in books.read(shelf[0]))
    ids = [int(i) for i in rows.corpus.ids if i != 2]
    assert rows.spm.decode(ids) == text
    assert len(rows.corpus.starts) == 7 and rows.corpus.ids[rows.corpus.bodies[0] - 1] == rows.newline_id


@pytest.mark.parametrize("length", [256, 512, 2048])
def test_rows(rows, length):
    rng = random.Random(length)
    for _ in range(40):
        ids, kinds, depths = rows.row(rng, length)
        assert len(ids) == len(kinds) == length and kinds[-1] == batches.ANSWER
        text = rows.spm.decode([int(i) for i in ids if i > 2])
        document, *asked = text.split("\n\nQuestion: ")
        assert len(asked) == len(depths)
        for part in asked:
            answer = part.split("\nAnswer: ")[1]
            assert answer.endswith("\n") and answer.strip().lower() in document.lower()


def test_planted_ids_are_those_of_the_whole_text(rows):
    rng = random.Random(2)
    for _ in range(30):
        ids, kinds, _ = rows.row(rng, 512, 4, extras=False)
        end = np.flatnonzero(kinds == batches.ANSWER)[0]
        document = ids[: end - len(rows.answering)]
        begin = int(np.flatnonzero(document == rows.newline_id)[0])
        cut = max(np.flatnonzero(document == rows.newline_id))
        document = [int(i) for i in document[begin : cut + 1] if i > 2]
        assert rows.spm.encode(rows.spm.decode(document)) == document or 2 in ids


def test_batches_depend_on_their_number_alone(rows):
    first = batches.Batches(rows, 1024, [(256, 0.5), (512, 0.5)], seed=4)
    later = batches.Batches(rows, 1024, [(256, 0.5), (512, 0.5)], seed=4, first=3)
    for a, b in zip(first[3], later[0]):
        assert torch.equal(a, b)
    ids, kinds = first[0]
    assert ids.shape[1] == kinds.shape[1] + 1 and kinds.numel() == 1024 and (ids[:, 0] == 1).all()


def run(shelf, out, *more):
    args = ["--books", shelf[0], "--valid", shelf[0], "--tokenizer", shelf[1], "-o", out, "--tiny"]
    args += ["--batch", "1024", "--workers", "0", "--every", "1", *more]
    made = default_model.Run(default_model.arguments([str(a) for a in args]))
    made.train()
    return made


def test_a_resumed_run_is_the_same(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(default_model, "TINY_CONFIG", llama.Config(16, 32, 1, 2, 1, 8, 512))
    whole = run(shelf, tmp_path / "a", "--steps", "8")
    stopped = default_model.Run.progress
    monkeypatch.setattr(default_model.Run, "progress", lambda self: 1.0 if self.step == 5 else stopped(self))
    run(shelf, tmp_path / "b", "--steps", "8")
    monkeypatch.setattr(default_model.Run, "progress", stopped)
    resumed = run(shelf, tmp_path / "b", "--steps", "8", "--resume")
    assert resumed.step == whole.step == 8
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, msg=name)
    resumed.finish()
    assert "facts by depth" in (tmp_path / "b" / "log.txt").read_text()
    again = run(shelf, tmp_path / "c", "--steps", "8", "--init", tmp_path / "a" / "model", "--begin", "0.75")
    assert again.step == 2


def test_twins_and_plugging_in(shelf, tmp_path, monkeypatch):
    """The same batches with full attention; then only the attention's parameters are trained."""
    monkeypatch.setattr(default_model, "TINY_CONFIG", llama.Config(16, 32, 1, 2, 1, 8, 512))
    cca, full = (run(shelf, tmp_path / a, "--steps", "3", "--attention", a) for a in ("cca", "full"))
    assert [s.lengths for s in cca.stages] == [s.lengths for s in full.stages]
    assert {s.group_size for s in full.stages} == {1} and cca.stages[-1].group_size == 4
    settings = [json.loads((r.out / "model" / "config.json").read_text())["cca"]["tuned"] for r in (cca, full)]
    assert settings == [True, False]
    assert json.loads((cca.out / "model" / "config.json").read_text())["cca"]["sinks"] == 4
    before = llama.load(tmp_path / "full" / "model").state_dict()
    tuned = run(shelf, tmp_path / "tuned", "--steps", "3", "--init", tmp_path / "full" / "model", "--only", "attention")
    changed = {name for name, value in tuned.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".self_attn." in name}


def test_recall_at_the_end_of_full_attention(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(default_model, "TINY_CONFIG", llama.Config(16, 32, 1, 2, 1, 8, 512))
    budgets, attention = set(), llama.cca.attention
    monkeypatch.setattr(llama.cca, "attention", lambda *a: budgets.add((a[3], a[5].budget)) or attention(*a))
    made = run(shelf, tmp_path / "r", "--steps", "8", "--plan", "recalled")
    settings = json.loads((made.out / "model" / "config.json").read_text())["cca"]
    assert settings == {"group_size": 4, "window_size": 32, "tuned": True, "chat_template": "plain", "sinks": 4, "recall": 16}
    assert (4, 16) in budgets and all(budget == 16 * (g == 4) for g, budget in budgets)


@pytest.mark.parametrize("kind,only", [("llama", "all"), ("llama", "attention"), ("qwen2", "attention")])
def test_finetune(tmp_path, shelf, kind, only):
    transformers = pytest.importorskip("transformers")
    import finetune

    make = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[kind]
    config = make(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=512, max_position_embeddings=512, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "in")
    (tmp_path / "in" / "tokenizer.model").write_bytes(shelf[1].read_bytes())
    (tmp_path / "text").write_text(books.read(shelf[0])[0].text)
    finetune.main(
        f"{tmp_path / 'in'} {tmp_path / 'out'} --text {tmp_path / 'text'} --valid {tmp_path / 'text'} --only {only} -g 4 -w 16 --recall 8 "
        f"--length 128 --rows 2 --steps 4 --lr 1e-2 --every 1 --dtype float32".split()
    )
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["cca"] == {"group_size": 4, "window_size": 16, "sinks": 4, "recall": 8, "tuned": True}
    assert settings["model_type"] == kind
    assert (tmp_path / "out" / "tokenizer.model").exists()
    before, after = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / f).state_dict() for f in ("in", "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    attention = {name for name in before if ".self_attn." in name}
    assert changed == attention if only == "attention" else changed == set(before)
    if kind == "llama":
        tuned, r = finetune.load(tmp_path / "out", 4, 16, 4, 8), reference()
        wanted = r.load_hf(tmp_path / "out").forward(IDS.numpy(), 4, 16, recall=r.Recall(1, 8, 32))
        with torch.no_grad():
            np.testing.assert_allclose(tuned(IDS[None]).logits[0].numpy(), wanted, atol=1e-4 * np.abs(wanted).max())


def test_branches_from_a_common_beginning(shelf, tmp_path, monkeypatch):
    """All branches see the same batches after the trunk and are measured on the same tokens; a second
    run makes nothing again."""
    monkeypatch.setattr(default_model, "TINY_CONFIG", llama.Config(16, 32, 1, 2, 1, 8, 512))
    names = ["cca", "full", "distilled", "attention", "tuned"]
    args = ["--books", shelf[0], "--valid", shelf[0], "--tokenizer", shelf[1], "-o", tmp_path / "o", "--cache", tmp_path / "cache"]
    args += ["--tiny", "--batch", "4096", "--workers", "0", "--trunk", "3", "--branch", "4", "--more", "2", "--branches", *names]
    args = [str(a) for a in args]
    seen = {}
    train = twins.Twins.update
    monkeypatch.setattr(
        twins.Twins, "update", lambda self, rows, *more: seen.setdefault(self.out.name, []).append(rows) or train(self, rows, *more)
    )
    twins.main(args)
    assert [len(seen[n]) for n in ["trunk", *names]] == [3, 4, 4, 4, 4, 2]
    for name in names[:-1]:
        assert all(torch.equal(a, b) for a, b in zip(seen[name], seen["cca"]))
    results = {n: json.loads((tmp_path / "o" / n / "results.json").read_text())["measured"] for n in names}
    assert list(results["full"]) == ["1 32", "4 32"] and list(results["cca"]) == ["4 32"]
    for length, windows in ((1024, results["full"]["1 32"]["1024"]), (2048, results["cca"]["4 32"]["2048"])):
        assert len(windows["nats"]) == len(books.load(shelf[0], shelf[1]).ids) // length
        assert windows["known"][1] > windows["opening"][1] > 0 and windows["new"][1] > 0
    weights = {n: llama.load(tmp_path / "o" / n / "model").state_dict() for n in ("trunk", *names)}
    changed = {k for k, v in weights["attention"].items() if not torch.equal(v, weights["trunk"][k])}
    assert changed == {k for k in changed if ".self_attn." in k} and changed
    assert not torch.equal(weights["distilled"]["norm.weight"], weights["cca"]["norm.weight"])
    seen.clear()
    twins.main(args)
    assert not seen
    # Weights alone are enough to go on from, and no trunk is made for that.
    more = [*args[: args.index("--branches")], "--given", f"full={tmp_path / 'o' / 'full' / 'model'}", "--branches", "more", "tuned", "schooled"]
    more[more.index("-o") + 1] = str(tmp_path / "p")
    twins.main(more)
    assert sorted(f.parent.name for f in (tmp_path / "p").glob("*/results.json")) == ["full", "more", "schooled", "tuned"]
    assert [len(rows) for rows in seen.values()] == [2, 2, 2]
    assert all(torch.equal(a, b) for name in seen for a, b in zip(seen[name], seen["more"]))
    given, moved = (llama.load(tmp_path / f / "model").state_dict()["norm.weight"] for f in ("o/full", "p/more"))
    assert 0 < (given - moved).abs().max() < 0.01


def test_a_fact_that_opens_a_document(rows):
    """Its question may find no room, or have two answers."""
    rng, asked = random.Random(3), 0
    for _ in range(20):
        ids, kinds, depths = rows.row(rng, 1024, 4, False, opening=1)
        asked += 0 in depths
        assert kinds[0] == batches.NOTHING
        assert rows.spm.decode([int(i) for i in ids if i > 2]).index("\n\n") > 10
    assert asked >= 14
