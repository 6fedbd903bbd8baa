#!/usr/bin/env python3
"""Compares renderings of chat templates with those of transformers.

    pip install transformers==5.24.0 jinja2==3.1.6
    python tests/jinja/compare.py build/cpu/tests/render FOLDER [-v]

FOLDER has templates of public models, such as models/templates of llama.cpp's source; where there is
none, a line says that nothing was compared. Each template is rendered for the conversations
below. Prints a row of a table for each: conversations that are equal to transformers' text, those
that both refuse, and those that only Jinja2's sandbox with lists that may change renders, equally.
Exits 1 where a text differs, or one refuses what the other renders.
"""

import json
import pathlib
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
    if len(sys.argv) < 3 or not pathlib.Path(sys.argv[2]).is_dir():
        print("compare.py: SKIPPED: no folder of templates was given")
        return 0
    verbose, bad = "-v" in sys.argv, 0
    print("| template | equal | refused by both | equal where lists may change | different |\n|---|--:|--:|--:|--:|")
    for path in sorted(pathlib.Path(sys.argv[2]).glob("*.jinja")):
        counts, differences = compare(sys.argv[1], path, verbose)
        print(f"| {path.stem} | {counts[0]} | {counts[1]} | {counts[2]} | {len(differences)} |", flush=True)
        bad += len(differences)
        for name, theirs, ours in differences if verbose else []:
            at = next((i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours)))
            print(f"    {name}: at {at}\n      {theirs[max(0, at - 60):at + 80]!r}\n      {ours[max(0, at - 60):at + 80]!r}")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
