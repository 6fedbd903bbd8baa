#!/usr/bin/env python3
"""Compares renderings of chat templates, and their ids, with those of transformers.

    pip install transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6
    python tests/jinja/compare.py build/release/render_template ./cca FOLDER [-v]

FOLDER has templates of public models, such as models/templates of llama.cpp's source; where there is
none, a line says that nothing was compared. Each template is rendered for the conversations
below. Prints a row of a table for each: conversations whose text is equal to transformers', those
that both refuse, and those that only Jinja2's sandbox with lists that may change renders, equally;
then those without tools whose ids are equal, too, of a small byte-level tokenizer that has the special
tokens of all templates. Exits 1 where a text or an id differs, or one refuses what the other renders.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

SYSTEM = {"role": "system", "content": "Be brief. <|im_end|>"}
USER = {"role": "user", "content": "  Who wrote \u201cParadise Lost\u201d?\n"}
ANSWER = {"role": "assistant", "content": "<think>\nA poet, of 1667.\n</think>\n\nMilton, it's \"John\"."}
FURTHER = {"role": "user", "content": "And 'when'? <think> caf\u00e9 \U0001f600"}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call00001", "type": "function",
     "function": {"name": "look_up", "arguments": {"title": "Paradise Lost", "years": [1667, 1.5], "deep": None}}}]}
RESULT = {"role": "tool", "name": "look_up", "tool_call_id": "call00001", "content": "{\"year\": 1667}"}
TOOLS = [{"type": "function", "function": {
    "name": "look_up", "description": "Looks up a <title> & more.",
    "parameters": {"type": "object", "required": ["title"], "properties": {
        "title": {"type": "string", "description": "the book's title"},
        "years": {"type": "array", "items": {"type": "number"}, "description": "when"},
        "kind": {"type": "string", "enum": ["prose", "verse"], "default": "verse"},
        "deep": {"type": ["boolean", "null"]}}}}}]

CONVERSATIONS = {
    "system and user": ([SYSTEM, USER], {}),
    "user": ([USER], {}),
    "user, no prompt": ([USER], {"add_generation_prompt": False}),
    "turns": ([USER, ANSWER, FURTHER], {}),
    "system and turns": ([SYSTEM, USER, ANSWER, FURTHER], {}),
    "ends with an answer": ([SYSTEM, USER, ANSWER], {"add_generation_prompt": False}),
    "tools": ([SYSTEM, USER], {"tools": TOOLS}),
    "tool called": ([USER, CALL, RESULT], {"tools": TOOLS}),
    "tool's turns": ([SYSTEM, USER, CALL, RESULT, ANSWER, FURTHER], {"tools": TOOLS}),
    "thinking": ([USER, ANSWER, FURTHER], {"enable_thinking": True}),
    "no thinking": ([USER, ANSWER, FURTHER], {"enable_thinking": False}),
}


ID_CONVERSATIONS = [[{"role": "system", "content": "Be brief."}, USER], [USER],
                    [USER, {"role": "assistant", "content": "Milton, it's \"John\"."}, FURTHER]]
SMOLLM = pathlib.Path(__file__).parent / "../golden/models/hf-text-smollm/tokenizer.json"


def make_tokenizer(cca, templates, folder):
    """SmolLM's little tokenizer with whatever looks like a special token in the templates."""
    import tokenizers
    import transformers

    found = set()
    for path in templates:
        found |= set(re.findall(r"<\|[^<>|'\"\s{}]+\|>|<\uff5c[^<>'\"\s{}]+\uff5c>|\[/?[A-Z_]+\]|</?s>|<(?:start|end)_of_turn>", path.read_text()))
    tok = tokenizers.Tokenizer.from_file(str(SMOLLM))
    tok.add_special_tokens(sorted(found - {"<think>"}))
    tok.save(str(folder / "tokenizer.json"))
    model = folder / "tokens.gguf"
    shape = f"32,1,2,2,32,{tok.get_vocab_size()}"
    subprocess.run([cca, "export", "--random", shape, "--tokenizer", folder / "tokenizer.json", "-o", model, "-q"], check=True)
    return model, transformers.PreTrainedTokenizerFast(tokenizer_object=tok)


def compare_ids(program, path, model, tokenizer):
    """Number of conversations with equal ids, and differences."""
    from transformers.utils import chat_template_utils

    equal, differences = 0, []
    variables = {"tools": None, "documents": None, "add_generation_prompt": True}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump([{"variables": {"messages": m, **variables}, "now": int(time.time())} for m in ID_CONVERSATIONS], f)
        f.flush()
        results = json.loads(subprocess.run([program, path, f.name, model], check=True, capture_output=True).stdout)
    for messages, ours in zip(ID_CONVERSATIONS, results):
        try:
            template = chat_template_utils._compile_jinja_template(path.read_text())
            theirs = tokenizer(template.render(messages=messages, **variables), add_special_tokens=False)["input_ids"]
        except Exception as e:
            if isinstance(ours["ids"], list):
                differences.append(("ids", str(e), "rendered"))
            continue
        if theirs == ours["ids"]:
            equal += 1
        else:
            differences.append((f"ids of {len(messages)} messages", str(theirs), str(ours["ids"])))
    return equal, differences


def contexts():
    for messages, more in CONVERSATIONS.values():
        yield {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True,
               "bos_token": "<s>", "eos_token": "</s>", **more}


def sandboxes(template):
    """Transformers' renderer, and the same with lists and dicts that may change."""
    import jinja2.sandbox
    from transformers.utils import chat_template_utils

    strict = chat_template_utils._compile_jinja_template(template)
    env = strict.environment
    lax = jinja2.sandbox.SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                              extensions=list(env.extensions.values()) and [type(e) for e in env.extensions.values()])
    lax.filters.update(env.filters)
    lax.globals.update(env.globals)
    return strict, lax.from_string(template)


def render(template, variables):
    try:
        return template.render(**json.loads(json.dumps(variables))), None
    except Exception as e:
        return None, f"{type(e).__name__}: {e}"


def compare(program, path, verbose):
    """Numbers of equal texts, refusals of both, texts that only the lax sandbox has; differences."""
    source = path.read_text()
    wanted = list(contexts())
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump([{"variables": v, "now": int(time.time())} for v in wanted], f)
        f.flush()
        results = json.loads(subprocess.run([program, path, f.name], check=True, capture_output=True).stdout)
    try:
        strict, lax = sandboxes(source)
    except Exception as e:
        refused = sum("error" in r for r in results)
        return [0, refused, 0], [] if refused == len(results) else [("all", f"jinja2: {e}", "rendered")]
    counts, differences = [0, 0, 0], []
    for name, variables, ours in zip(CONVERSATIONS, wanted, results):
        text, why = render(strict, variables)
        mine = ours.get("text")
        if text is None and mine is not None and render(lax, variables)[0] == mine:
            counts[2] += 1
        elif text is None and mine is None:
            counts[1] += 1
            if verbose:
                print(f"    {name}: {why} | {ours['error']}")
        elif text == mine:
            counts[0] += 1
        else:
            differences.append((name, text if text is not None else why, mine if mine is not None else ours["error"]))
    return counts, differences


def main():
    if len(sys.argv) < 4 or not pathlib.Path(sys.argv[3]).is_dir():
        print("compare.py: SKIPPED: no folder of templates was given")
        return 0
    verbose, bad = "-v" in sys.argv, 0
    templates = sorted(pathlib.Path(sys.argv[3]).glob("*.jinja"))
    folder = tempfile.TemporaryDirectory()
    model, tokenizer = make_tokenizer(sys.argv[2], templates, pathlib.Path(folder.name))
    print("| template | equal | refused by both | equal where lists may change | ids equal | different |")
    print("|---|--:|--:|--:|--:|--:|")
    for path in templates:
        counts, differences = compare(sys.argv[1], path, verbose)
        ids, more = compare_ids(sys.argv[1], path, model, tokenizer)
        differences += more
        print(f"| {path.stem} | {counts[0]} | {counts[1]} | {counts[2]} | {ids} | {len(differences)} |", flush=True)
        bad += len(differences)
        for name, theirs, ours in differences if verbose else []:
            at = next((i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours)))
            print(f"    {name}: at {at}\n      {theirs[max(0, at - 60):at + 80]!r}\n      {ours[max(0, at - 60):at + 80]!r}")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
