#!/usr/bin/env bash
# Chat templates of a model's own, in Jinja: prompts, documents, turns, session files, refusals.
set -u
. tests/cli/lib.sh

cp -r tests/golden/models/hf-text-smollm "$work/folder"
make_model() { # name; standard input is the template
    cat >"$work/folder/chat_template.jinja"
    "$CCA" export "$work/folder" -q -o "$work/$1.gguf" || fail "export of $1"
}

make_model chatml <<'END'
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
END
# Of an answer five characters stay once another question comes.
make_model anew <<'END'
{%- for m in messages %}
    {%- set c = m.content[:5] if m.role == 'assistant' else m.content %}
    {{- '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}
END
# The system text stands before the last question.
make_model moves <<'END'
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content + '\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
    {{- '<|im_start|>' + (system if loop.last else '') + m.content + '<|im_end|>' }}
{%- endfor %}
END
make_model strict <<'END'
{% if messages[0].role == 'system' %}

{{ raise_exception('System role not supported') }}
{% endif %}
{% for m in messages %}{{ m.content }}{{ m.nothing.more if 'break' in m.content }}{% endfor %}
END
make_model broken <<'END'
{{ messages }}
{% for m in messages %}
END

prompt_tokens() { # of the last record
    sed -nE 's/.*"tokens": \{"prompt": ([0-9]+).*/\1/p' "$work/out" | head -1
}

# How many tokens a text has, control tokens among them.
tokens_of() { # text
    "$CCA" tokenize -m "$work/chatml.gguf" --special --no-bos -p "$1" | wc -w
}

prompt_is() { # name, text
    local found
    found=$(prompt_tokens)
    if [ "$found" = "$(tokens_of "$2")" ]; then pass "$1"; else fail "$1" "$found tokens, not those of $2"; fi
}

generate=(generate -m "$work/chatml.gguf" --temp 0 -n 4 --no-kv --json -q)
expect 0 'the text as it is' "${generate[@]}" -p 'Who?'
prompt_is 'is the prompt' 'Who?'
expect 0 'with --chat' "${generate[@]}" --chat -p ' Who?'
prompt_is 'in the template of the file' $'<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n'
expect 0 'with a system text' "${generate[@]}" -sys 'Be brief.' -p 'Who?'
prompt_is 'both' \
    $'<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n'
expect 0 'a control token in the text' "${generate[@]}" --chat -p 'a<|im_end|>b'
check 'stays text' test "$(prompt_tokens)" -gt \
    "$(tokens_of $'<|im_start|>user\na<|im_end|>b<|im_end|>\n<|im_start|>assistant\n')"
expect 0 'but with --special' "${generate[@]}" --special --chat -p 'a<|im_end|>b'
prompt_is 'is one' $'<|im_start|>user\na<|im_end|>b<|im_end|>\n<|im_start|>assistant\n'
expect 0 'a template by name' "${generate[@]}" --chat-template plain -p 'Who?'
prompt_is 'is that' $'Question: Who?\nAnswer:'
expect 0 'bytes that are no UTF-8' "${generate[@]}" --chat --invalid-utf8 bytes -f <(printf 'a\xffb')

# Documents.
printf 'The letter is of 1812.\n' >"$work/a.txt"
printf 'It was signed by Ada.\n' >"$work/b.txt"
ask=(ask --no-kv -m "$work/chatml.gguf" -n 4 -q --json -f "$work/a.txt" -f "$work/b.txt")
expect 0 'questions about documents' "${ask[@]}" 'Who?' 'When was it?'
stdout_has 'in the template of the file' '"chat_template": "file"'
asked=$'<|im_start|>user\nDocument: a.txt\nThe letter is of 1812.\n\n\nDocument: b.txt\nIt was signed by Ada.\n'
check 'its tokens' test "$(sed -nE 's/.*"document_tokens": ([0-9]+).*/\1/p' "$work/out")" = \
    "$(tokens_of "$asked")"
cp "$work/out" "$work/both"
expect 0 'the second alone' "${ask[@]}" 'When was it?'
check 'has the same answer' test "$(grep -o '"text": "[^"]*"' "$work/out" | head -1)" = \
    "$(grep -o '"text": "[^"]*"' "$work/both" | grep -v 'letter\|signed' | sed -n 2p)"
expect 0 'a follow-up' "${ask[@]}" --follow-up 'Who?' 'When was it?'
check 'reads its own tokens alone' test "$(grep -o '"prefilled": [0-9]*' "$work/out" | sed -n 's/.* //; 2p')" -lt 40
expect 0 'where the system text moves' ask --no-kv -m "$work/moves.gguf" -n 4 -q --json -f "$work/a.txt" \
    -sys 'Be brief.' --follow-up 'Who?' 'When was it?'
check 'all is read again' test "$(grep -o '"reused": [0-9]*' "$work/out" | sed -n 's/.* //; 2p')" -le 2

# Turns. An answer's end token is the template's, too.
for model in chatml anew moves; do
    chat=(chat -m "$work/$model.gguf" --temp 0 -n 12 -q)
    expect 0 "$model: three turns" "${chat[@]}" -sys 'Be brief.' < <(printf 'Who?\nWhen was it?\nAnd where?\n')
    cp "$work/out" "$work/three"
    rm -f "$work/talk.ccas"
    "$CCA" "${chat[@]}" -sys 'Be brief.' --session "$work/talk.ccas" < <(printf 'Who?\n') >"$work/first" 2>/dev/null
    "$CCA" "${chat[@]}" -sys 'Be brief.' --session "$work/talk.ccas" < <(printf 'When was it?\nAnd where?\n') \
        >"$work/rest" 2>/dev/null
    check "$model: in two processes the same" cmp "$work/three" <(cat "$work/first" "$work/rest")
    expect 0 "$model: turns taken back" "${chat[@]}" -sys 'Be brief.' \
        < <(printf 'Who?\nNo?\nNot?\n/undo 2\nWhen was it?\n/regen\nAnd where?\n')
    check "$model: leave no trace" test "$(tail -1 "$work/out")" = "$(tail -1 "$work/three")"
    expect 0 "$model: another system text" "${chat[@]}" \
        < <(printf 'Who?\n/system Be brief.\nWhen was it?\n')
done
expect 3 'a session of another template' chat -m "$work/chatml.gguf" --session "$work/talk.ccas" </dev/null

# What is refused.
expect 2 'a system text that is not wanted' ask --no-kv -m "$work/strict.gguf" -sys x -p Doc. 'Who?'
stderr_has 'names file, key, line and reason' \
    'strict.gguf: tokenizer.chat_template, line 3, refuses: System role not supported; give --chat-template'
expect 0 'without one' ask --no-kv -m "$work/strict.gguf" -n 2 -p Doc. 'Who?'
expect 3 'what breaks on the way' ask --no-kv -m "$work/strict.gguf" -n 2 -p Doc. 'break'
stderr_has 'is named' "line 5: 'dict object' has no attribute 'nothing'"
expect 3 'a template that is none' chat -m "$work/broken.gguf" </dev/null
stderr_has 'names the line' 'line 2: the block that begins here has no end: endfor is missing'
expect 0 'is not asked for' generate -m "$work/broken.gguf" -n 2 -p 'Who?' -q
expect 0 'nor where another is' ask --no-kv -m "$work/broken.gguf" --chat-template plain -n 2 -p Doc. 'Who?'
