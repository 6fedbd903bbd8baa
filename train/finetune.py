#!/usr/bin/env python3
"""Fine-tune a Llama or Qwen2 with CCA-Attention: finetune.py IN OUT --text FILE...

IN is a Hugging Face folder. Its attention is swapped for CCA, all parameters (--only all) or those
of the attention alone (--only attention) are trained on plain text, and OUT gets a Hugging Face
folder with the settings of CCA in config.json, for `cca export`.
"""
import argparse
import math
import shutil
from pathlib import Path

import sentencepiece
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, AutoTokenizer

import cca

KEPT = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template", "generation_config")


def attend(module, query, key, value, attention_mask, **kwargs):
    """CCA-Attention in the form that transformers calls: (batch, length, heads, head_dim)."""
    settings = module.config.cca
    recall = cca.Recall(settings["sinks"], settings["recall"])
    out = cca.attention(query, key, value, settings["group_size"], settings["window_size"], recall)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("cca", attend)
AttentionMaskInterface.register("cca", lambda *args, **kwargs: None)  # cca.attention is causal by itself


def load(folder, group_size, window_size, sinks, recall):
    """A model with CCA-Attention, in float32; so many first tokens stay raw, so many others are recalled."""
    cca.check(group_size, window_size, cca.Recall(sinks, recall))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="cca")
    if model.config.model_type not in ("llama", "qwen2"):
        raise SystemExit(f"{folder}: {model.config.model_type} is neither llama nor qwen2")
    model.config.cca = {"group_size": group_size, "window_size": window_size, "sinks": sinks, "recall": recall, "tuned": True}
    model.config.use_cache = False
    return model


def save(folder, model, source, dtype):
    """The Hugging Face folder, with what belongs to the tokenizer as it was."""
    model.config.use_cache = True
    model.to(dtype).save_pretrained(folder)
    for file in Path(source).iterdir():
        if file.name.startswith(KEPT):
            shutil.copyfile(file, Path(folder) / file.name)


def choose(model, only):
    """The parameters to train; the others are frozen."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(only == "all" or ".self_attn." in name)
    return [p for p in model.parameters() if p.requires_grad]


def tokens(folder, files):
    """The ids of all files in one tensor."""
    folder, texts = Path(folder), [Path(f).read_text(encoding="utf-8") for f in files]
    if (folder / "tokenizer.model").exists() and not (folder / "tokenizer.json").exists():
        encode = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    return torch.tensor([i for text in texts for i in encode(text)])


def perplexity(model, ids, length, rows):
    """Over the first rows of so many tokens."""
    losses = []
    with torch.no_grad():
        for row in ids[: len(ids) // length * length].view(-1, length)[:rows]:
            row = row[None].to(model.device)
            losses.append(model(input_ids=row, labels=row).loss.item())
    return math.exp(sum(losses) / len(losses))


def train(model, ids, args):
    parameters = choose(model, args.only)
    print(f"{sum(p.numel() for p in parameters)} of {sum(p.numel() for p in model.parameters())} parameters are trained")
    adam = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    generator = torch.Generator().manual_seed(args.seed)
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda")
    for step in range(args.steps):
        rate = args.lr * min(1, (step + 1) / 20) * (1 - step / args.steps)
        adam.param_groups[0]["lr"] = rate
        total = 0
        for _ in range(args.rows):
            start = int(torch.randint(len(ids) - args.length + 1, (), generator=generator))
            row = ids[start : start + args.length][None].to(model.device)
            with half:
                loss = model(input_ids=row, labels=row).loss / args.rows
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        if (step + 1) % args.every == 0:
            print(f"step {step + 1} loss {total:.4f} rate {rate:.2e}", flush=True)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("source", help="Hugging Face folder")
    p.add_argument("out", help="folder to write")
    p.add_argument("--text", nargs="+", required=True, help="UTF-8 files to train on")
    p.add_argument("--valid", nargs="*", default=[], help="UTF-8 files for the perplexity before and after")
    p.add_argument("--only", choices=("all", "attention"), default="all")
    p.add_argument("-g", "--group-size", type=int, default=16)
    p.add_argument("-w", "--window-size", type=int, default=1024)
    p.add_argument("--sinks", type=int, help="first tokens that stay raw; None: one group")
    p.add_argument("--recall", type=int, default=0, help="tokens behind the window that a tile of queries recalls")
    p.add_argument("--length", type=int, default=8192, help="tokens in a row")
    p.add_argument("--rows", type=int, default=8, help="in a step")
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument("--lr", type=float, default=2e-5)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--every", type=int, default=10, help="steps between lines")
    p.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="bfloat16", help="of the saved weights")
    p.add_argument("--checkpointing", action="store_true", help="less memory, more time")
    args = p.parse_args(argv)
    sinks = args.group_size if args.sinks is None else args.sinks
    model = load(args.source, args.group_size, args.window_size, sinks, args.recall)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    ids, valid = tokens(args.source, args.text), args.valid and tokens(args.source, args.valid)
    for name, has in (("--text", len(ids)), ("--valid", len(valid) if args.valid else args.length)):
        if has < args.length:
            p.error(f"{name} has {has} tokens, fewer than --length {args.length}")
    if args.checkpointing:
        model.gradient_checkpointing_enable()
    if args.valid:
        print(f"perplexity before: {perplexity(model, valid, args.length, 16):.4f}")
    train(model, ids, args)
    if args.valid:
        print(f"perplexity after: {perplexity(model, valid, args.length, 16):.4f}")
    save(args.out, model, args.source, getattr(torch, args.dtype))


if __name__ == "__main__":
    main()
