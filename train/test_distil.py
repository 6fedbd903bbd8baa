"""Unpacking, rows, distillation and patches of a tiny model with a byte-level BPE. Run with: python3 -m pytest train"""
import io
import json
import random
import re
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

gguf = pytest.importorskip("gguf")

import books  # noqa: E402
import cca  # noqa: E402
import distil  # noqa: E402
import documents  # noqa: E402
import model as llama  # noqa: E402
import patch  # noqa: E402
import questions  # noqa: E402
import records  # noqa: E402
import unpack  # noqa: E402

CONFIG = llama.Config(64, 96, 2, 4, 2, 16, 300, max_position_embeddings=256, rope_theta=1e4)
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
CCA = shutil.which("cca") or Path(__file__).resolve().parents[1] / "cca"


def byte_tokens():
    """The 256 characters that stand for bytes in GPT-2's vocabulary, some merges, and two control tokens."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    characters = [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]
    merges = ["t h", "th e", "Ġ the", "i n", "a n", "an d", "o u", "e r", "Ġ a", "Ġ o"]
    return ["<s>", "</s>", *characters, *(m.replace(" ", "") for m in merges)], merges


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A model file of random weights: (path, the model)."""
    torch.manual_seed(2)
    path, model = tmp_path_factory.mktemp("base") / "base.gguf", llama.Llama(CONFIG)
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.15)
    out = gguf.GGUFWriter(path, "llama")
    out.add_name("Tiny")
    out.add_context_length(CONFIG.max_position_embeddings)
    out.add_embedding_length(CONFIG.hidden_size)
    out.add_feed_forward_length(CONFIG.intermediate_size)
    out.add_block_count(CONFIG.num_hidden_layers)
    out.add_head_count(CONFIG.num_attention_heads)
    out.add_head_count_kv(CONFIG.num_key_value_heads)
    out.add_rope_freq_base(CONFIG.rope_theta)
    out.add_rope_dimension_count(CONFIG.head_dim)
    out.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    tokens, merges = byte_tokens()
    tokens += [f"unused{i}" for i in range(CONFIG.vocab_size - len(tokens))]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(tokens)
    out.add_token_types([3, 3] + [1] * (CONFIG.vocab_size - 2))
    out.add_token_merges(merges)
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    out.add_chat_template(TEMPLATE)
    ours = {v: k for k, v in unpack.TOP.items()} | {v: k for k, v in unpack.NAMES.items()}
    for name, value in model.state_dict().items():
        _, *layer, part = name.removesuffix(".weight").rsplit(".", 0)[0].partition("layers.")
        number, _, part = part.partition(".")
        theirs = f"blk.{number}.{ours[part]}" if name.startswith("layers.") else ours[name.removesuffix(".weight")]
        if ".attn_q" in theirs or ".attn_k" in theirs:
            value = unpack.paired(value, CONFIG.head_dim)
        out.add_tensor(theirs + ".weight", value.contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path, model


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """A tar of two small books."""
    path, rng = tmp_path_factory.mktemp("books") / "books.tar.xz", random.Random(3)
    with tarfile.open(path, "w:xz") as tar:
        for i in range(2):
            slots = questions.Slots(rng)
            body = "\n\n".join(f"Then {slots.person()} found {slots.thing()}, and the rain began. Nobody knew why." for _ in range(300))
            data = (books.header(f"Book {i}", slots.person(), slots.year()) + body).encode()
            info = tarfile.TarInfo(f"{i}.txt")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def arguments(base, shelf, out, *more):
    given = "--lengths 256 --batch 512 -g 4 -w 32 --sinks 4 --lr 3e-3 --warm-up 1 --every 2 --workers 0 --steps 8"
    return [str(base[0]), str(out), "--books", str(shelf), "--valid", str(shelf), *given.split(), *more]


def test_a_file_is_unpacked_as_it_was_packed(base):
    path, model = base
    found = unpack.load(path)
    assert found.config == CONFIG
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), model.state_dict().values()))


def test_pairs_and_halves():
    x = torch.arange(32)[:, None].float()
    assert unpack.paired(x, 16)[:4, 0].tolist() == [0, 8, 1, 9]
    assert torch.equal(unpack.halved(unpack.paired(x, 16), 16), x)


def test_the_folder_has_weights_tokenizer_and_template(base, tmp_path):
    unpack.main([str(base[0]), str(tmp_path)])
    loaded = llama.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), base[1].state_dict().values()))
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {"chat_template": TEMPLATE}
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["cca"]["tuned"]) == (0, 1, False)
    assert "chat_template" not in config["cca"]


def test_digits_are_tokens_of_their_own(base):
    tokenizer = unpack.tokenizer_of(base[0])
    assert tokenizer.encode("the 12 and<s>").tokens == ["the", "Ġ", "1", "2", "Ġ", "and", "<s>"]


def rows_of(base, shelf, answers=(), share=0):
    template = documents.chat_template(unpack.template_of(base[0]))
    return documents.Rows([b.text for b in books.read(shelf)], unpack.tokenizer_of(base[0]), template, answers, share)


def test_rows(base, shelf):
    rows, kinds = rows_of(base, shelf), set()
    for i in range(30):
        ids, answer = rows.row(random.Random(i), 2000)
        text = rows.tokenizer.decode(ids, skip_special_tokens=False)
        assert len(ids) == len(answer) == 2001 and any(answer) == (ids[0] == 0)
        kinds.add(ids[0] == 0)
        if ids[0] == 0:  # a chat: turns in the template, and what is asked for stands in the document
            document, *turns = text.split("</s>\n")
            assert text.startswith("<s>user\n") and turns and text.endswith("</s>\n") and "\x1d" not in text
            answers = [turn.removeprefix("<s>assistant\n") for turn in turns[::2]]
            assert any(a.lower() in document.lower() for a in answers if a)
            marked = [i for i, of_answer in zip(ids, answer) if of_answer]
            assert rows.tokenizer.decode(marked) == "".join(answers)
    assert kinds == {True, False}


def test_answers_of_the_model_take_part(base, shelf, tmp_path):
    documents.main(["--books", str(shelf), "--bytes", "600", "--count", "2", "-o", str(tmp_path)])
    for file in tmp_path.glob("*.jsonl"):
        events = [json.dumps({"event": "answer", "text": f"said {i}"}) for i, _ in enumerate(file.read_text().splitlines())]
        file.with_suffix(".answers").write_text("\n".join([*events, json.dumps({"schema": "cca.ask.1"})]) + "\n")
    (tmp_path / "0001.answers").write_text("")  # an interrupted one
    answers = documents.answered(tmp_path)
    assert len(answers) == 1 and answers[0][1][3][1] == "said 3"
    rows = rows_of(base, shelf, answers)
    texts = [rows.tokenizer.decode(rows.chat(random.Random(i), 3000)[0]) for i in range(20)]
    assert 4 < sum("said " in text for text in texts) < 16


def test_texts_of_other_kinds_take_the_place_of_books(base, shelf, tmp_path):
    path = tmp_path / "texts.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for name in ("code/a.c", "code/b.c", "docs/deep/x.md"):
            data = f"{name}\n\n".encode() * 300
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    others = documents.kinds(path)
    assert [[text.split("\n")[0] for text in kind] for kind in others] == [["code/a.c", "code/b.c"], ["docs/deep/x.md"]]
    texts = [b.text for b in books.read(shelf)]
    rows = documents.Rows(texts, unpack.tokenizer_of(base[0]), others=others, others_share=0.25)
    begins = [rows.piece(random.Random(i), 200)[0] for i in range(400)]
    assert 70 < sum(begin.startswith(("code/", "docs/")) for begin in begins) < 130
    assert 30 < sum(begin == "docs/deep/x.md" for begin in begins) < 75
    assert {"code/a.c", "code/b.c"} <= set(begins)


def test_records_are_asked_for_once_and_stand_in_their_statements():
    for seed in range(60):
        statements, turns = records.several(random.Random(seed), 1 + seed % 12)
        assert len(statements) >= 1 + seed % 12 and len(set(statements)) == len(statements)
        assert statements == records.several(random.Random(seed), 1 + seed % 12)[0]
        parts = [part.split(". The ")[0] for _, answer in turns for part in answer.rstrip(".").split(" is ") if not part.startswith("The ")]
        values = [value for part in parts for value in re.split(", | and ", part)]
        assert len(values) == len(statements)
        assert all(sum(value in statement for statement in statements) == 1 for value in values)
        assert len({question for question, _ in turns}) == len(turns)


def test_rows_about_records(base, shelf):
    rows, alone, found = rows_of(base, shelf, share=1), 0, 0
    for i in range(40):
        ids, answer = rows.chat(random.Random(i), 2000)
        assert len(ids) == len(answer) == 2001
        document, *turns = rows.tokenizer.decode(ids, skip_special_tokens=False).split("</s>\n")
        answers = [turn.removeprefix("<s>assistant\n") for turn in turns[::2]]
        found += re.split(r" is |, | and ", answers[0].rstrip("."))[-1] in document
        alone += len(set(document.split("\n\n")[2:-1])) < 8
    assert 4 < alone < 30 and found >= 36  # what stands first may be cut off


def run_of(base, shelf, out, *more):
    return distil.Run(distil.parser().parse_args(arguments(base, shelf, out, *more)))


def test_alike_there_is_no_divergence(base, shelf, tmp_path):
    run = run_of(base, shelf, tmp_path, "-g", "1", "-w", "1", "--sinks", "0")
    ids = torch.tensor([rows_of(base, shelf).plain(random.Random(1), 128)])
    near, behind = run.losses(ids, 0)
    assert near.abs().max() < 1e-5 and behind is None


def test_the_divergence_is_that_of_distributions(base, shelf, tmp_path):
    run = run_of(base, shelf, tmp_path)
    ids = torch.tensor([rows_of(base, shelf).plain(random.Random(1), 128)])
    near, _ = run.losses(ids, 0)
    x = run.student(ids[:, :-1], 4, 32, recall=cca.Recall(4))
    p, q = (m.logits(h).double().softmax(-1) for m, h in ((run.teacher, run.teacher(ids[:, :-1])), (run.student, x)))
    torch.testing.assert_close(near.double(), (p * (p / q).log()).sum(-1), atol=1e-6, rtol=1e-3)
    assert near[:32].max() < 1e-6 < near[64:].mean()  # within the window nothing differs


def test_a_run_begins_with_a_patch_as_with_the_weights_it_was_made_of(base, shelf, tmp_path):
    distil.main(arguments(base, shelf, tmp_path / "out"))
    patch.main([str(base[0]), str(tmp_path / "out"), str(tmp_path / "patch.gguf"), "--type", "f32"])
    folder, file = (run_of(base, shelf, tmp_path / str(i), "--init", str(tmp_path / name)) for i, name in enumerate(("out", "patch.gguf")))
    assert all(torch.equal(folder.trained[name], file.trained[name]) for name in folder.trained)
    assert not torch.equal(folder.student.layers[0].self_attn.q_proj.weight, folder.teacher.layers[0].self_attn.q_proj.weight)
    with pytest.raises(SystemExit, match="no weights"):
        patch.trained(tmp_path, 16)


def test_two_runs_are_mixed(base, shelf, tmp_path):
    for i, name in enumerate("ab"):
        distil.main(arguments(base, shelf, tmp_path / name, "--seed", str(i), "--steps", "4"))
        patch.main([str(base[0]), str(tmp_path / name), str(tmp_path / f"{name}.gguf"), "--type", "f32"])
    patch.main([str(base[0]), *(str(tmp_path / f"{n}.gguf") for n in ("a", "both")), "--type", "f32", "--mix", str(tmp_path / "b"), "--share", "0.25"])
    a, b, both = (patch.trained(tmp_path / f"{n}.gguf", 16) for n in ("a", "b", "both"))
    assert a[1] == both[1] and a[1]["group_size"] == 4
    assert all(torch.allclose(0.75 * a[0][n] + 0.25 * b[0][n], w, atol=1e-7) and not torch.equal(a[0][n], w) for n, w in both[0].items())


def test_beyond_the_teachers_reach_the_text_counts(base, shelf, tmp_path):
    run = run_of(base, shelf, tmp_path, "--yarn", "2", "--lengths", "512")
    ids = torch.tensor([rows_of(base, shelf).plain(random.Random(1), 512)])
    near, behind = run.losses(ids, 0)
    assert (len(near), len(behind), run.student.config.max_position_embeddings) == (256, 256, 512)
    logits = run.student.logits(run.hidden(ids[:, :-1], 0))[256:]
    torch.testing.assert_close(behind, torch.nn.functional.cross_entropy(logits, ids[0, 257:], reduction="none"))


def test_answers_count_as_they_are_told_to(base, shelf, tmp_path):
    run = run_of(base, shelf, tmp_path, "--answer-weight", "5", "--yarn", "2", "--lengths", "512")
    near, behind, answer = torch.rand(2 * 256), torch.rand(2 * 44), torch.rand(2, 300) < 0.1
    each = torch.cat([near.view(2, 256), behind.view(2, 44)], 1)
    wanted = (each.sum() + 4 * each[answer].sum()) / (600 + 4 * answer.sum())
    torch.testing.assert_close(run.weighted(near, behind, answer), wanted)
    torch.testing.assert_close(run.weighted(near, None, answer[:, :256]), (near.sum() + 4 * near[answer[:, :256].reshape(-1)].sum()) / (512 + 4 * answer[:, :256].sum()))


def test_attention_alone_is_trained_and_learns(base, shelf, tmp_path):
    run = run_of(base, shelf, tmp_path, "--steps", "30")
    ids = torch.tensor([rows_of(base, shelf).plain(random.Random(i), 256) for i in range(2)])
    before = run.losses(ids, 0)[0].mean().item()
    run.train(rows_of(base, shelf), rows_of(base, shelf))
    assert run.losses(ids, 0)[0].mean().item() < 0.8 * before
    changed = {n for n, p in run.student.named_parameters() if not torch.equal(p, run.teacher.get_parameter(n))}
    assert changed == {n for n, _ in run.teacher.named_parameters() if ".self_attn." in n}


def test_a_resumed_run_is_the_same(base, shelf, tmp_path):
    whole = run_of(base, shelf, tmp_path / "whole", "--recall", "16")
    whole.train(rows_of(base, shelf), rows_of(base, shelf))
    for out in ("parts", "parts"):
        run = run_of(base, shelf, tmp_path / out, "--recall", "16", "--resume")
        batches = distil.Batches(rows_of(base, shelf), 512, [(256, 1.0)], 1, run.step)
        for i in range(4):
            recalls = random.Random(f"1 recall {run.step}").random() < 0.5
            run.update(batches[i], 16 if recalls else 0, run.rate(run.progress()))
            run.step += 1
        run.save()
    assert all(torch.equal(a, b) for a, b in zip(whole.trained.values(), run.trained.values()))


def test_a_patch_has_what_was_trained(base, shelf, tmp_path):
    run = run_of(base, shelf, tmp_path, "--yarn", "4", "--recall", "16", "--no-cores")
    with torch.no_grad():
        run.trained["layers.1.self_attn.k_proj.weight"] += 0.5
    run.save()
    patch.main([str(base[0]), str(tmp_path), str(tmp_path / "p.gguf"), "--type", "f16", "--name", "Tuned"])
    file, source = gguf.GGUFReader(tmp_path / "p.gguf"), gguf.GGUFReader(base[0])
    assert {t.name for t in file.tensors} == {t.name for t in source.tensors if ".attn_" in t.name and "norm" not in t.name}
    theirs = {t.name: t for t in file.tensors}["blk.1.attn_k.weight"].data
    wanted = unpack.paired(base[1].layers[1].self_attn.k_proj.weight.detach() + 0.5, 16).half()
    assert torch.equal(torch.from_numpy(theirs.copy()), wanted)
    assert unpack.value(file, "cca.patch.tensors") == [t.name for t in source.tensors]
    assert unpack.value(file, "cca.patch.crc32") == [zlib.crc32(t.data.tobytes()) for t in source.tensors]
    assert [unpack.value(file, f"cca.{k}") for k in ("group_size", "window_size", "sinks", "recall")] == [4, 32, 4, 16]
    patch.main([str(base[0]), str(tmp_path), str(tmp_path / "more.gguf"), "--recall", "64"])
    assert unpack.value(gguf.GGUFReader(tmp_path / "more.gguf"), "cca.recall") == 64
    assert unpack.value(file, "llama.context_length") == 1024 and unpack.value(file, "general.name") == "Tuned"
    assert unpack.value(file, "llama.rope.scaling.original_context_length") == 256


@pytest.mark.skipif(not Path(CCA).exists(), reason="no cca")
def test_cca_computes_what_was_trained(base, shelf, tmp_path):
    """The base with the patch gives the student's logits, stretched RoPE and all."""
    run = run_of(base, shelf, tmp_path, "--yarn", "2", "--lengths", "512")
    for p in run.trained.values():
        p.data += 0.05 * torch.randn_like(p)
    run.save()
    patch.main([str(base[0]), str(tmp_path), str(tmp_path / "p.gguf"), "--type", "f16"])
    subprocess.run([CCA, "export", base[0], "--patch", tmp_path / "p.gguf", "-o", tmp_path / "m.gguf", "-q"], check=True)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16" and kinds["blk.0.ffn_up.weight"] == "F32"
    rows = rows_of(base, shelf)
    (tmp_path / "text").write_text(rows.books.texts[0][:400])
    ids = torch.tensor([rows.encode(rows.books.texts[0][:400])])
    more = ["--attn", "cca", "-ctk", "f32", "-ctv", "f32", "--logits-out", tmp_path / "logits", "-q"]
    subprocess.run([CCA, "ppl", "-m", tmp_path / "m.gguf", "-f", tmp_path / "text", *more], check=True, stdout=subprocess.DEVNULL)
    found = torch.from_numpy(np.fromfile(tmp_path / "logits", np.float32)).view(-1, CONFIG.vocab_size)
    wanted = run.student.logits(run.hidden(ids, 0)).detach()[: len(found)]
    assert len(found) >= 256 and (found - wanted).abs().max() < 5e-3 * wanted.abs().max()
