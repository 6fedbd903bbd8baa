#!/usr/bin/env bash
# The records of --json and --jsonl against their schemas in docs/CLI.md, by a JSON parser: one line
# each, the schema's name, every key that its schema has and no key that no schema has, and of the
# values that a schema lists one of them.
set -u
. tests/cli/lib.sh

# Schemas stand in the text as {"schema": "cca.NAME.1", "key", "key": "one|other", "key": {...}}.
schema_of() { # name
    tr '\n' ' ' <docs/CLI.md | awk -v name="{\"schema\": \"$1\"" '{
        at = index($0, name)
        for (i = at; at && i <= length($0); i++) {
            c = substr($0, i, 1)
            depth += (c == "{") - (c == "}")
            printf "%s", c
            if (depth == 0) exit
        }
    }'
}

keys_of_schema() { # a schema; its key names
    sed -E 's/: "[^"]*"/:/g' <<<"$1" | grep -oE '"[^"]+"' | tr -d '"' | sort -u
}

every_schema=$(grep -oE '\{"schema": "cca\.[a-z]+\.[0-9]+"' docs/CLI.md | cut -d'"' -f4 | sort -u)
every_key=$(for name in $every_schema; do keys_of_schema "$(schema_of "$name")"; done | sort -u)
event_keys=$(printf 'event\ntext\n')

# Compares what the last cca wrote with a schema. Keys that depend on the run may be missing from it.
matches() { # schema's name, file with one record, keys that may be missing
    local schema bad own missing key values
    schema=$(schema_of "$1")
    [ -n "$schema" ] || { echo "no schema $1 in docs/CLI.md"; return 1; }
    [ "$(wc -l <"$2")" = 1 ] || { echo 'not one line'; return 1; }
    [ "$(jq -r .schema "$2")" = "$1" ] || { echo "schema $(jq -r .schema "$2")"; return 1; }
    # Below types, keys and tensors the names are the model file's.
    own=$(jq -r 'if .types then .types |= {"Q8_0": .[keys[0]]} else . end
        | if .keys then .keys = {} else . end | if .tensors then .tensors |= (if type == "array" then [] else . end) else . end
        | [.. | objects | keys[]] | unique[]' "$2")
    missing=$(comm -23 <(keys_of_schema "$schema") <(sort -u <<<"$own"))
    for key in ${3:-}; do missing=$(grep -vx "$key" <<<"$missing"); done
    bad=$(comm -23 <(sort -u <<<"$own") <(sort -u <<<"$every_key
$event_keys"))
    [ -z "$missing$bad" ] || { echo "missing: $missing; not in a schema: $bad"; return 1; }
    while IFS='"' read -r _ key _ values _; do
        jq -e --arg k "$key" --arg v "$values" '[.. | objects | select(has($k)) | .[$k] | strings]
            | all(. as $x | $v | split("|") | index($x))' "$2" >/dev/null ||
            { echo "$key is none of $values"; return 1; }
    done < <(grep -oE '"[a-z_]+": "[^"|]+\|[^"]+"' <<<"$schema")
}

tested=
record() { # schema's name, keys that may be missing, arguments of cca
    tested="$tested $1"
    cca "${@:3}"
    [ "$code" = 0 ] || { fail "$1: $3" "exit status $code: $(head -3 "$work/err")"; return; }
    check "$1: ${*:3:2}" matches "$1" "$work/out" "$2"
}

command -v jq >/dev/null || { skip 'schemas' 'no jq here'; exit; }
make_random 32,2,4,2,64,128
make_stories
export CCA_MODEL=$stories
seq 1 100 >"$work/ids"
text=(-p 'Once upon a time')
ask=(ask "${text[@]}" --chat-template plain -n 3)

record cca.generate.1 '' generate "${text[@]}" -n 3 --json
record cca.memory.1 '' generate "${text[@]}" -n 3 --json --dry-run
printf '{"question": "Who", "id": 1, "choices": ["Ann", "Bob"]}\n"Where"\n' >"$work/questions"
place='found file line last_line begin end share' # of a quotation or source, where an answer has one
record cca.ask.1 "$place document" "${ask[@]}" --json --quotes --sources -Q "$work/questions"
printf '{"question": "Who", "id": 1, "choices": ["Ann", "Bob"], "document": "%s"}\n' "$work/ids" >"$work/questions"
record cca.ask.1 "$place" ask --chat-template plain -n 3 --no-kv --json --quotes --sources -Q "$work/questions"
record cca.ppl.1 '' ppl -m "$random" --ids "$work/ids" --base full --json
record cca.plan.1 '' plan -m "$random" -c 64 --ranks 1 --json
record cca.bench.1 '' bench -m "$random" -p 4 -n 2 -r 1 --format json
record cca.tune.1 '' tune -f "$work/ids" -g 4 -w 16 -c 64 --facts 2 --chat-template plain --min-tps 1e-9 --no-state \
    --format json
record cca.selftest.1 '' selftest -m "$random" --json
record cca.info.1 '' info "$stories" --json --keys --tensors
record cca.info.1 'keys tensors' info "$stories" --json
record cca.info.1 'keys tensors kind bos eos unk pad add_bos' info "$random" --json
record cca.session.1 '' session ls --json
check 'a session was listed' test "$(jq '.sessions | length' "$work/out")" = 1
record cca.tokenize.1 'text' tokenize "${text[@]}" --json --pieces
record cca.tokenize.1 'count ids pieces offsets' tokenize --decode -p '4 5' --json

# Events: each line a record, the last one the whole.
events() { # schema's name, event of the others, arguments of cca
    cca "${@:3}"
    head -n -1 "$work/out" >"$work/events"
    tail -n 1 "$work/out" >"$work/end"
    check "$1: events" test "$(jq -s 'map(.event) | unique[]' -r "$work/events") $(jq -r .event "$work/end")" = "$2 end"
    check "$1: their end" matches "$1" "$work/end" "${events_without:-}"
}
events cca.generate.1 text generate "${text[@]}" -n 8 --jsonl
check 'pieces make up the text' test "$(jq -j .text "$work/events")" = "$(jq -j .text "$work/end")"
events_without="answers question document id text stop_reason tokens timing logprob logprob_per_byte probability choices sources source_ends start quotes $place" events cca.ask.1 answer "${ask[@]}" --jsonl Who Where
check 'an answer has its keys' test "$(jq -s 'map(keys) | unique | length' "$work/events")" = 1

# Text of the model that is no UTF-8, and names that are none, are U+FFFD in a record.
cp "$random" "$work/"$'\xff.gguf'
expect 0 'a name that is no UTF-8' plan -m "$work/"$'\xff.gguf' -c 64 --dry-run --json
check 'is U+FFFD' test "$(jq -r .model.file "$work/out")" = "$work/"$'\xef\xbf\xbd.gguf'

for name in $every_schema; do
    [[ " $tested " == *" $name "* ]] || fail "schema $name" 'docs/CLI.md has it, no test here compares it'
done
check 'all schemas are compared' test -n "$tested"

# The comparison itself sees what it is for.
printf '{"schema": "cca.memory.1", "positions": 1}\n' >"$work/one"
if matches cca.memory.1 "$work/one" >"$work/why"; then fail 'a missing key'; else check 'a missing key is told' grep -q 'missing: memory' "$work/why"; fi
