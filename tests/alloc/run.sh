#!/usr/bin/env bash
# Sweeps each command: lets each of its calls fail in turn (tests/alloc/sweep.c, the program in $1),
# in the ways named behind it: memory, eio, enospc, eintr, short. One line a sweep, one a way at the
# end; the exit status is 1 where something was found. SHORT=1 sweeps a few commands alone. ONLY, a
# pattern, sweeps those whose words match it.
set -u
cd "$(dirname "$0")/../.."
sweep=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/out"
export ASAN_OPTIONS=exitcode=77:detect_leaks=1
export XDG_CACHE_HOME=$work/cache
unset CCA_MODEL

seeds=tests/fuzz/seeds
gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
printf 'A text of several words, 123.\n' >"$work/text"
gzip -c "$work/text" >"$work/text.gz"
mkdir "$work/hf"
(cd "$work/hf" && csplit -s --suppress-matched - '/^%%$/' '{*}' &&
    mv xx00 config.json && mv xx01 generation_config.json && mv xx02 tokenizer_config.json) \
    <$seeds/hf/plain
tail -c +"$(($(grep -aob '^%%$' $seeds/hf/plain | tail -1 | cut -d: -f1) + 4))" $seeds/hf/plain \
    >"$work/hf/model.safetensors"
rm -f "$work"/hf/xx*

# Small tokenizers of both kinds of tokenizer.json.
cat >"$work/bytes.json" <<'END'
{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel"}]},
 "added_tokens": [{"id": 5, "content": "<|im_end|>", "special": true}],
 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "abab": 4},
    "merges": ["a b", ["ab", "ab"]]}}
END
cat >"$work/pieces.json" <<'END'
{"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
 "model": {"type": "BPE", "byte_fallback": true, "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3},
    "merges": ["a b"]}}
END

# The models to run with: made once, nothing fails.
pieces=640
seq 1 40 >"$work/ids"
model=$work/model.gguf
CCA=${CCA:-./cca}
"$CCA" export --random "32,2,4,2,64,$pieces" --seed 1 -q --tokenizer "$work/tokenizer.model" \
    -o "$model" || exit 1
"$CCA" export --random 32,2,4,2,64,6 --seed 1 -q --tokenizer "$work/bytes.json" \
    -o "$work/bytes.gguf" || exit 1

# A small model with a template of its own, and one whose weights may be K-quants.
cp -r tests/golden/models/hf-text-smollm "$work/templated"
cat >"$work/templated/chat_template.jinja" <<'END'
{%- for m in messages %}
    {%- set c = m.content[:5] if m.role == 'assistant' else m.content %}
    {{- '<|im_start|>' + m.role + '\n' + c | trim + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}
END
"$CCA" export "$work/templated" -q -o "$work/templated.gguf" || exit 1
"$CCA" export --random "256,1,4,2,256,$pieces" --seed 3 -q --tokenizer "$work/tokenizer.model" \
    -o "$work/wide.gguf" || exit 1

[ $# -gt 0 ] || set -- memory
kinds=("$@")
bad=0
: >"$work/lines"
sweep_all() { # options, exit status and command
    [[ "$*" == ${ONLY:-*} ]] || return
    for kind in "${kinds[@]}"; do
        "$sweep" -f "$kind" "${options[@]}" "$work/out" "$@" >"$work/said" || bad=1
        cat "$work/said"
        tail -1 "$work/said" >>"$work/lines"
    done
}
options=()
try() {
    [ "${SHORT:-0}" = 0 ] || return
    sweep_all 0 "$@"
}
try_short() { # also with SHORT=1
    sweep_all 0 "$@"
}
try_with() { # file that each run finds in the folder, command
    options=(-c "$1")
    try_short "${@:2}"
    options=()
}
try_timed() { # output tells of times, which are other ones each time
    options=(-x)
    try "$@"
    options=()
}
try_timed_with() {
    options=(-x -c "$1")
    try_short "${@:2}"
    options=()
}
try_failure() { # exit status, command
    [ "${SHORT:-0}" = 0 ] || return
    sweep_all "$@"
}

try export --random 32,1,4,2,64,$pieces -t 1 --tokenizer "$work/tokenizer.model" -o "$work/out/m.gguf" -q
try export --random 32,1,4,2,64,$pieces -t 2 --type q8_0 -o "$work/out/m.gguf" -q
try export --random 32,1,4,2,64,8 -t 1 --tokenizer "$work/bytes.json" -o "$work/out/m.gguf" -q
try export --random 32,1,4,2,64,4 -t 1 --tokenizer "$work/pieces.json" -o "$work/out/m.gguf" -q
try tokenize -m "$work/bytes.gguf" -p 'abab a ab<|im_end|>' --special
try export "$work/hf" -t 1 -o "$work/out/m.gguf" -q
try export $seeds/llama2c/v0-untied -t 1 -o "$work/out/m.gguf" -q
try_timed bench -m "$model" -t 1 -p 8 -n 2 -d 0,40 -g 4 -w 8 -r 2 --attn cca,full --no-peaks -q \
    --svg "$work/out/b.svg" -o "$work/out/b.md"
try_timed bench -m "$model" -t 2 -p 4 -n 0 -r 1 --format json -q -o "$work/out/b.json"
try_timed tune -m "$model" -f "$work/ids" -g 4 -w 8,9 -c 16 --tokens 40 --length 120 --facts 1 --chat-template plain \
    -t 1 -q --no-full --no-state --svg "$work/out/t.svg" -o "$work/out/t.md"
try_timed tune -m "$model" -f "$work/ids" -g 4 -w 8 -c 16 --tokens 40 --length 60 --no-facts -t 1 -q --min-tps 1e-9 \
    --state "$work/state" --format json
try info "$model" --keys --tensors --check
try info "$model" --json --keys --tensors
try tokenize -m "$model" -f "$work/text.gz" --pieces -p more
try tokenize -m "$model" -f "$work/text" --pieces --json
try tokenize -m "$model" -f "$work/text" --check --invalid-utf8 bytes
try generate -m "$model" -f "$work/text.gz" -n 3 --seed 1 -t 2 --repeat-penalty 1.1 -q
try generate -m "$model" -p hello -n 2 --temp 0 -t 1 --json --stop xyz -o "$work/out/answer"
try ask -m "$model" -f "$work/text.gz" 'Who?' 'When?' --chat-template plain -n 2 -t 1 -q
try ask -m "$model" -f "$work/text" 'Who?' --chat-template llama2 -sys Brief. -n 2 -t 2 --json -q
try export "$model" --type q4_0 -t 1 -o "$work/out/m.gguf" -q
try ppl -m "$model" -f "$work/text" -t 1 -q
try ppl -m "$model" -f "$work/text" --mode stride -c 16 -t 2 --json --nll-out "$work/out/nll" \
    -o "$work/out/report" -q
try ppl -m "$model" --ids "$work/ids" --mode llama.cpp -c 16 -t 1 --logits-out "$work/out/logits" -q
try generate -m "$model" -f "$work/text" -f "$work/text.gz" --chat-template plain -sys Brief. -n 2 -c 48 -t 1 \
    --truncate middle --jsonl
try generate -m "$model" -e -p 'a\nb' --stop '\n' --attn sinks:2 -g 4 -w 8 -ctk f16 -n 2 --temp 0 -t 2
try generate -m "$model" -p hello --dry-run
try ask -m "$model" -f "$work/text" 'Who?' 'When?' --chat-template plain -g 4 -w 8 -n 2 -t 1 --jsonl --stop x
printf '%s\n' '"When?"' '{"question": "Why?", "id": 1, "max_answer": 1, "stop": "b"}' >"$work/q.jsonl"
try ask -m "$model" -f "$work/text" -Q "$work/q.jsonl" --follow-up --quotes --sources 2 --chat-template mistral -n 24 --temp 2 \
    --seed 3 -t 1 --jsonl -q --no-kv
printf '"Who?"\n{"question": "When?", "id": 7, "max_answer": 1, "stop": ["x"]}\n' >"$work/questions"
try ask -m "$model" -f "$work/text" -f "$work/text.gz" -Q "$work/questions" --quotes --chat-template plain \
    -n 2 -t 1 --json --no-kv -q
try ask -m "$model" -f "$work/text" 'Who?' 'When?' --follow-up --chat-template plain -n 2 -t 1 --no-kv -q
printf '{"question": "Who?", "choices": ["a", "some words"]}\n' >"$work/choices"
try ask -m "$model" -f "$work/text" -Q "$work/choices" 'When?' --choices 'now,not\, now' --follow-up --chat-template plain \
    -g 4 -w 8 -t 1 --json --no-kv -q
try ask -m "$model" -f "$work/text" -i --chat-template plain -n 2 -t 1 --no-kv <"$work/text"
try tokenize -m "$model" --decode -p '1 2 3' --json
try tokenize -m "$model" -p 'A text.' --count -o "$work/out/n"
try export tests/golden/kquants/tiny.gguf -t 1 --chat-template plain -o "$work/out/m.gguf" -q
try export --random 32,1,2,2,32,300 -t 1 --tokenizer $seeds/vocab/llama2c -g 4 -w 8 -o "$work/out/m.gguf" -q
try export tests/golden/models/hf-llama-shards-bf16 -t 2 -o "$work/out/m.gguf" -q
try export tests/golden/models/hf-text-qwen2 -t 1 -o "$work/out/m.gguf"
try_failure 2 generate -m "$model" -p hello -n 2 --no-such-option
try_failure 7 export "$model" -q -o "$work/none/m.gguf"
try_failure 3 info "$work/text"
try_failure 4 generate -m "$model" -f "$work/text" -c 4
ask=(ask -m "$model" -f "$work/text" 'Who?' --chat-template plain -g 4 -w 8 -n 2 -t 1 -q)
try "${ask[@]}" --session "$work/out/s.ccas" --checkpoint-every 8
"$CCA" "${ask[@]}" --session "$work/s.ccas" >"$work/answer" || bad=1
try "${ask[@]}" --session "$work/s.ccas"
recall=(--attn recall --recall 8 --rows disk)
try "${ask[@]}" "${recall[@]}" --session "$work/out/s.ccas" --checkpoint-every 8
"$CCA" "${ask[@]}" "${recall[@]}" --session "$work/r.ccas" >"$work/answer" || bad=1
try "${ask[@]}" "${recall[@]}" --session "$work/r.ccas"
printf '%s\n' "/read $work/text" 'Who?' 'one\' 'two' /regen /undo "/save $work/out/c.ccas" '"""When?"""' \
    "/load $work/out/c.ccas" '/system Be brief.' '/set temp 0.5' /stats /set >"$work/chat"
chat=(chat -m "$model" --chat-template llama2 -g 4 -w 8 -n 2 -t 1 -q)
try "${chat[@]}" -s 1 -f "$work/text.gz" <"$work/chat"
"$CCA" "${chat[@]}" -f "$work/text" --session "$work/c.ccas" <"$work/chat" >"$work/answer" 2>&1 || bad=1
try_with "$work/c.ccas" "${chat[@]}" -s 1 --session "$work/out/c.ccas" <"$work/text"
try session ls "$work/s.ccas" --json
try session show "$work/s.ccas"
try session verify "$work/s.ccas" -o "$work/out/report"
try_timed plan -m "$model" -f "$work/text" -t 1 -g 4 -w 8 --dry-run --json
try_failure 5 plan -m "$model" -c 500 -t 1 --dry-run --mem-limit 10K -q
try_timed selftest -m "$model" -t 1 --device cpu --json -q
try session ls --json
try session show "$work/s.ccas" --json
try session verify --all
try session ls
try_with "$work/s.ccas" session rm "$work/out/s.ccas"
try completion bash
try completion zsh
try completion fish -o "$work/out/script"
try help generate
try help
try version
try -h

# K-quants, made and run; recall in memory; templates of a model's own; plan with its times.
for type in q4_k q6_k; do
    try export "$work/wide.gguf" --type $type -t 1 -o "$work/out/m.gguf" -q
    "$CCA" export "$work/wide.gguf" --type $type -t 1 -q -o "$work/$type.gguf" || bad=1
    try generate -m "$work/$type.gguf" -p hello -n 2 --temp 0 -t 1 -q
done
try info "$work/q4_k.gguf" --check
try generate -m "$model" -f "$work/text" --attn recall --recall 8 -g 4 -w 8 -ctr f16 -n 3 --temp 0 -t 2 -q
try ask -m "$model" -f "$work/text" 'Who?' 'When?' --chat-template plain --attn recall --recall 8 -g 4 -w 8 --cores \
    -n 2 -t 1 --no-kv -q --json
try ppl -m "$model" -f "$work/text" --attn recall --recall 8 -g 4 -w 8 --base full -t 1 -q
templated=(-m "$work/templated.gguf" -n 2 --temp 0 -t 1 -q)
try export "$work/templated" -t 1 -o "$work/out/m.gguf" -q
try generate "${templated[@]}" --chat -p 'Who?' -sys 'Be brief.'
try ask "${templated[@]}" -f "$work/text" -sys 'Be brief.' --follow-up --no-kv 'Who?' 'When?'
printf '%s\n' 'Who?' 'When?' /undo 'Why?' >"$work/turns"
try_timed chat "${templated[@]}" --session "$work/out/t.ccas" <"$work/turns"
try_timed plan -m "$model" -c 64 -t 1 --json -q
try_timed plan -m "$model" -f "$work/text" -n 8 -t 1 --ranks 2 -q

# Files that are there already: exported over, answered over, edited, gone on with.
cp "$model" "$work/m.gguf"
try_with "$work/m.gguf" export "$model" --type q8_0 -t 1 -q -o "$work/out/m.gguf"
try_timed_with "$work/m.gguf" tune -m "$work/out/m.gguf" -f "$work/ids" -g 4 -w 8 -c 16 --tokens 40 --no-facts -t 1 -q \
    --no-state --no-full --recall 8 --cores no --max-ppl-increase 50 --write
echo old >"$work/answer.txt"
try_with "$work/answer.txt" generate -m "$model" -p hello -n 2 --temp 0 -t 1 -q -o "$work/out/answer.txt"
try_with "$work/s.ccas" ask -m "$model" -f "$work/text" -f "$work/text" 'Who?' --chat-template plain -g 4 -w 8 -n 2 -t 1 -q \
    --temp 0 --session "$work/out/s.ccas" --checkpoint-every 8
try_with "$work/r.ccas" ask -m "$model" -f "$work/text" -f "$work/text" 'Who?' --chat-template plain -g 4 -w 8 -n 2 -t 1 -q \
    --temp 0 "${recall[@]}" --session "$work/out/r.ccas" --checkpoint-every 8

for kind in "${kinds[@]}"; do
    awk -v kind="$kind" '$2 == kind ":" { calls += $3; on += $5; bad += $8; n++ } END {
        printf "%s sweep %s: %d calls of %d commands, %d went on, %d failures\n", bad ? "FAILED" : "ok", kind, calls, n, on, bad
    }' "$work/lines"
done
exit $bad
