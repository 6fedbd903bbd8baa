#!/usr/bin/env bash
# Sinks and recall: what may be asked, what is told, sessions of programs before them.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export tests/golden/models/hf-text-llama2 -q -g 4 -w 16 -o "$model"
text='The sea was calm and the ship went on into the night, while the men below spoke of the land that they had left.'
ppl=(ppl -m "$model" -p "$text" -c 64)
generate=(generate -m "$model" -n 6 --temp 0)

wrong() { # attention with options, what the message says
    # shellcheck disable=SC2086
    expect 2 "--attn $1" "${ppl[@]}" --attn $1
    stderr_has 'is named' "$2"
}
wrong 'full --sinks 4' '[-]-sinks 4: attention full'
wrong 'full --recall 8' '[-]-recall 8: attention full'
wrong 'window --recall-tile 4' '[-]-recall-tile 4: attention window'
wrong 'sinks:4 --no-cores' '[-]-no-cores: attention sinks:4'
wrong 'mean --cores' '[-]-cores: attention mean'
wrong 'cca --recall 8' '[-]-recall 8: attention cca'
wrong 'cca --sinks 6' '[-]-sinks 6 is no multiple of the group size 4'
wrong 'auto --recall 9' '[-]-recall 9 is no multiple of the group size 4'
wrong 'recall --recall-tile 12' '[-]-recall-tile 12 is no power of two'
wrong 'recall --recall -1' '[-]-recall -1'
wrong 'recall --sinks some' '[-]-sinks some: a whole number or auto'
wrong 'recall --cores --no-cores' 'one of them'

# What is in force, in the signature and in the record.
signature() { # attention with options
    # shellcheck disable=SC2086
    cca "${ppl[@]}" --attn $1
    sed -nE 's/^signature.* (attn=.*) kv=.*/\1/p' "$work/out"
}
is() { # name, found, wanted
    check "$1" test "$2" = "$3"
}
is 'recall is the default' "$(signature auto)" 'attn=recall g=4 s=16 sinks=4 recall=2048 tile=32 cores=no'
is 'defaults are whole groups' "$(signature 'auto -g 3 -w 15')" 'attn=recall g=3 s=15 sinks=3 recall=2049 tile=32 cores=no'
is 'others' "$(signature 'recall --sinks 0 --recall 8 --recall-tile 1 --cores')" \
    'attn=recall g=4 s=16 sinks=0 recall=8 tile=1 cores=yes'
is 'without recall there are cores' "$(signature 'auto --recall 0')" 'attn=cca g=4 s=16 sinks=4'
is 'but where they are not wanted' "$(signature 'cca --no-cores')" 'attn=cca g=4 s=16 sinks=4 cores=no'
is 'the paper' "$(signature 'cca --sinks 0')" 'attn=cca g=4 s=16 sinks=0'
is 'a tuned model' "$("$CCA" ppl -m models/cca-*.gguf -p "$text" 2>/dev/null | grep -o 'attn=.* kv')" \
    'attn=cca g=16 s=256 sinks=16 kv'
expect 0 'a record' "${ppl[@]}" --json
stdout_has 'tells all' '"kind": "recall", "group_size": 4, "window_size": 16, "sinks": 4, "recall": 2048, "recall_tile": 32, "cores": false'
expect 0 'a plan' plan -m "$model" -c 2048 --dry-run
stdout_has 'has a column each' '^attention +recall 4/16/2048 +cca 4/16 +full$'
stdout_has 'bounds' '^bounds +65\.5 kB +0 B +0 B$'
stdout_has 'and rows' '^rows +262 kB +0 B +0 B$'

# Recall of everything is full attention, recall of nothing CCA.
nll() { # attention with options
    # shellcheck disable=SC2086
    "$CCA" "${ppl[@]}" -ctk f32 -ctv f32 --nll-out "$work/nll" --attn $1 >/dev/null 2>&1
    awk '{ printf "%.4f\n", $3 }' "$work/nll"
}
is 'recall of everything' "$(nll 'recall --recall 64')" "$(nll full)"
is 'recall of nothing' "$(nll 'recall --recall 0 --sinks 0')" "$(nll 'cca --sinks 0')"
check 'recall of some is neither' test "$(nll 'recall --recall 4')" != "$(nll full)"
is 'chunks' "$(nll 'recall --recall 8 -ub 32')" "$(nll 'recall --recall 8')"

# Rows behind the window in a type of their own: what was exact stays so, what is not is told.
rows=("${ppl[@]}" --attn recall --recall 8 --recall-tile 1 -ub 4 -q) # each chunk completes a group
is_about 'rows in f32 of a window in bf16' \
    "$("$CCA" "${rows[@]}" -ctr f32 | sed -n 's/^nats per token *//p')" \
    "$("$CCA" "${rows[@]}" | sed -n 's/^nats per token *//p')" 3e-4
is 'a signature' "$("$CCA" "${ppl[@]}" --attn recall -ctr f16/bf16 -q | grep -o 'kv=[^ ]* rows=[^ ]*')" \
    'kv=bf16/bf16 rows=f16/bf16'
wrong 'cca -ctr q8_0' '[-]-cache-type-r q8_0: attention cca recalls nothing'
wrong 'full -ctr q8_0' '[-]-cache-type-r q8_0: attention full recalls nothing'
wrong 'recall -ctr q9' "rows behind the window 'q9': use f32"
wrong 'recall -ctr q8_0/' "rows behind the window 'q8_0/': use f32"
expect 2 'a head_dim that no block fits' "${ppl[@]}" --attn recall -ctr q8_0
stderr_has 'is told' 'a cache of type q8_0 needs a head_dim divisible by 32'
expect 0 'a plan' plan -m models/cca-books-15m.gguf --attn recall -c 2048 --dry-run -ctr q8_0/q4_0
stdout_has 'tells rows beside the window' '^rows +3\.41 MB '

# Keys of the file go before the table, and are carried over.
cp -r tests/golden/models/hf-text-llama2 "$work/folder"
chmod -R u+w "$work/folder"
sed -i '1s/{/{ "cca": {"group_size": 4, "window_size": 16, "sinks": 0, "recall": 10, "cores": true},/' "$work/folder/config.json"
expect 0 'a folder with sinks and recall' export "$work/folder" -q -o "$work/first.gguf"
expect 0 'exported again' export "$work/first.gguf" -q -o "$work/keys.gguf"
expect 0 'has them still' info "$work/keys.gguf"
stdout_has 'in words' 'g 4, s 16, sinks 0, recall 10, cores yes, not tuned'
ppl[2]=$work/keys.gguf
is 'and uses them, rounded up' "$(signature auto)" 'attn=recall g=4 s=16 sinks=0 recall=12 tile=32 cores=yes'
is 'unless options differ' "$(signature 'auto --sinks 8 --recall 4 --no-cores')" 'attn=recall g=4 s=16 sinks=8 recall=4 tile=32 cores=no'
sed -i '1s/"cores": true/"cores": false/' "$work/folder/config.json"
"$CCA" export "$work/folder" -q -o "$work/keys.gguf"
is 'no cores' "$(signature auto)" 'attn=recall g=4 s=16 sinks=0 recall=12 tile=32 cores=no'
is 'which without recall there are' "$(signature 'auto --recall 0')" 'attn=cca g=4 s=16 sinks=0'

# A session of the program before: cca generate -p "$text" -n 12 --temp 0 --session.
old=$work/old.ccas
cp tests/golden/sessions/before-recall.ccas "$old"
expect 0 'a session of before goes on' "${generate[@]}" -p "$text And then" --session "$old"
stderr_has 'as it was made' 'goes on with attention cca, sinks 0, as it was made'
stderr_has 'with its tokens' '61 of 65 tokens are there'
cp "$work/out" "$work/old.out"
expect 0 'the same anew' "${generate[@]}" -p "$text And then" --attn cca --sinks 0
check 'has the same answer' cmp -s "$work/out" "$work/old.out"
expect 3 'with other sinks' "${generate[@]}" -p "$text And then" --session "$old" --sinks 4
stderr_has 'they differ' 'made with sinks=0, this run has sinks=4'
expect 3 'with recall' "${generate[@]}" -p "$text And then" --session "$old" --attn recall
stderr_has 'it differs' 'made with sinks=0, this run has sinks=4'

# One with recall.
new=$work/new.ccas
expect 0 'a session with recall' "${generate[@]}" -p "$text" --session "$new" --recall 8 --recall-tile 4
expect 0 'goes on' "${generate[@]}" -p "$text And then" --session "$new"
stderr_has 'as it was made, too' 'goes on with attention recall, sinks 4, recall 8, tile 4, cores no'
expect 0 'is shown' session show "$new"
stdout_has 'with recall' '^ +recall +8$'
stdout_has 'with the tile' '^ +recall_tile +4$'
stdout_has 'and cores' '^ +cores +no$'

# States that are kept by themselves are read anew, and it is said.
ask=(ask -m "$model" -p "$text" --chat-template plain -n 4)
expect 0 'a document' "${ask[@]}" --attn cca --sinks 0 'What?'
expect 0 'with other sinks' "${ask[@]}" 'What?'
stderr_has 'is read anew' 'made with (sinks|recall)=0, this run has .*; the documents are read anew'
expect 0 'once' "${ask[@]}" 'What?'
check 'and not again' test -z "$(grep anew "$work/err")"
