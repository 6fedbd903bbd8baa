#!/usr/bin/env bash
# Models and documents that mean harm: weights that are no numbers in each type, sizes that no machine
# has, templates without end, lines of 2 GB, compressed zeros, bytes that are no text. Each ends with
# its documented exit code and a message, within a bound of time and of memory (ulimit -v), and
# never by a signal. With SHORT=1 without those that take longer than seconds.
set -u
cd "$(dirname "$0")/../.."
. tests/cli/lib.sh

memory_kb=4000000 # of address space
seconds=120
program=$CCA
bounded() {
    (ulimit -v "$memory_kb" && exec timeout -k 5 "$seconds" "$program" "$@")
}
CCA=bounded

# One of several exit codes, and a message with all but 0.
ends() { # "codes", name, arguments of cca
    local codes=" $1 " name=$2
    shift 2
    cca "$@"
    case $codes in
    *" $code "*) if [ "$code" = 0 ] || [ -s "$work/err" ]; then pass "$name"; else fail "$name" "exit $code, no message"; fi ;;
    *) fail "$name" "exit $code, none of$codes: $*
$(head -c 300 "$work/err")" ;;
    esac
}
long_enough() { # name
    [ -z "${SHORT:-}" ] && return 0
    skip "$1" 'SHORT'
    return 1
}

# ---- bytes of a file ----

put() { # offset, bytes as printf has them: into the changed copy
    printf "$2" | dd of="$changed" bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
}
after() { # text: where the bytes behind its first place in the file stand
    echo $(($(LC_ALL=C grep -abo -m 1 -F "$1" "$changed" | head -1 | cut -d: -f1) + ${#1}))
}
begin_of() { # file, tensor: where its bytes begin
    "$CCA" info "$1" --json --tensors | tr '{' '\n' | sed -n "s/^\"name\": \"$2\".*\"offset\": \([0-9]*\),.*/\1/p"
}
changed=$work/changed.gguf

# ---- weights, in each type ----

seq 0 23 >"$work/ids"
# The first f16 number of a tensor's first block: where it is in a block, and no number, infinite, the
# largest, the least.
damage() { # model, type, tensor, place in the block
    local model=$1 type=$2 tensor=$3 at value wanted
    at=$(($(begin_of "$model" "$tensor") + $4))
    local values=('\xff\xff' '\x00\x7c' '\x00\xfc' '\xff\x7b' '\x01\x00')
    case $type in
    f32) values=('\x00\x00\xc0\x7f' '\x00\x00\x80\x7f' '\x00\x00\x80\xff' '\xff\xff\x7f\x7f' '\x01\x00\x00\x00') ;;
    bf16) values=('\xc0\x7f' '\x80\x7f' '\x80\xff' '\x7f\x7f' '\x01\x00') ;;
    esac
    for i in 0 1 2 3 4; do
        value=${values[i]}
        cp "$model" "$changed"
        put "$at" "$value"
        if [ "$i" -lt 3 ]; then
            ends 3 "$type, $tensor: $value" ppl -m "$changed" --ids "$work/ids" -q --json
            stderr_has "$type: names tensor and row" "changed.gguf: tensor $tensor, row 0: a weight is no finite number"
            stdout_empty "$type: no number is told"
        else
            wanted='0 1'
            [ "$i" = 4 ] && wanted=0
            ends "$wanted" "$type, $tensor: $value" ppl -m "$changed" --ids "$work/ids" -q --json
            [ "$code" = 0 ] && stdout_has "$type: a number is told" '"perplexity": [0-9]'
        fi
    done
}
for type in f32 f16 bf16 q8_0 q4_0 q4_k q5_k q6_k; do
    "$CCA" export --random 256,2,4,2,256,64 --seed 1 --type $type -q -o "$work/$type.gguf" 2>/dev/null
    place=0
    [ $type = q6_k ] && place=208
    for tensor in token_embd.weight blk.0.attn_q.weight blk.1.ffn_down.weight; do
        damage "$work/$type.gguf" $type $tensor $place
    done
done
old=tests/golden/kquants/tiny.gguf # of types that are read, and not made
damage $old q4_1 blk.0.attn_q.weight 0
damage $old q4_1 blk.0.attn_q.weight 2
damage $old q5_0 blk.0.attn_k.weight 0
damage $old q5_1 blk.0.attn_v.weight 0
damage $old q5_1 blk.0.attn_v.weight 2

# ---- sizes ----

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
model=$work/model.gguf
"$CCA" export --random 32,2,4,2,64,640 --seed 1 --tokenizer "$work/tokenizer.model" -g 4 -w 8 -q -o "$model" 2>/dev/null
seconds=20
for key in llama.block_count llama.context_length llama.embedding_length llama.feed_forward_length \
    llama.attention.head_count llama.attention.head_count_kv llama.rope.dimension_count \
    llama.vocab_size llama.attention.key_length cca.group_size cca.window_size; do
    cp "$model" "$changed"
    at=$(after $key)
    [ "$at" -gt 64 ] || continue # a key that the file does without
    for value in '\x00\x00\x00\x00' '\x01\x00\x00\x00' '\xff\xff\xff\x7f' '\x00\x00\x00\x80' '\xff\xff\xff\xff'; do
        put $((at + 4)) "$value"
        ends '0 3' "$key $value: info" info "$changed"
        ends '0 2 3 5' "$key $value: ppl" ppl -m "$changed" --ids "$work/ids" -q
        ends '0 2 3 4 5' "$key $value: generate" generate -m "$changed" -p 'a text' -n 2 -q
        ends '0 3 5' "$key $value: plan" plan -m "$changed" -c 2147483647 --dry-run
        ends '0 3 5' "$key $value: export" export "$changed" -q -o "$work/x.gguf"
    done
done
for at in 8 16; do # numbers of tensors and of keys
    for value in '\x00\x00\x00\x00\x00\x00\x00\x00' '\xff\xff\xff\xff\xff\xff\xff\xff' '\x00\x00\x00\x00\x01\x00\x00\x00'; do
        cp "$model" "$changed"
        put $at "$value"
        ends 3 "byte $at $value: generate" generate -m "$changed" -p x -n 1
        stderr_has 'names the file' 'changed\.gguf'
    done
done
cp "$model" "$changed"
put "$(($(after llama.context_length) + 4))" '\xff\xff\xff\x7f'
for positions in 0 2147483647; do
    ends '0 2 4 5' "2^31 - 1 positions, -c $positions" generate -m "$changed" -p x -n 4 -c $positions -q --attn full
done
ends '0 2 5' '2^31 - 1 positions of chat' chat -m "$changed" --chat-template plain -c 2147483647 -n 1 -q </dev/null
for c in ask generate ppl; do
    ends '2 5' "$c: more chunk than any memory" $c -m "$model" -p x -q -ub 2147483647 -c 2147483647
done
ends 7 'a random model of no memory' export --random 1048576,1000,1024,8,4194304,16777216 -q -o "$work/never.gguf"
check 'leaves no file' test -z "$(find "$work" -name 'never*')"

# ---- prompts of control tokens ----

for text in '<s>' '</s>' '<s><s><s></s></s><unk>' '<unk><unk>'; do
    ends '0 4' "a prompt of $text" generate -m "$model" --special -p "$text" -n 2 -q
    ends '0 4' "a document of $text" ask -m "$model" --special -p "$text" --chat-template plain -n 2 -q --no-kv 'Who?'
    ends '0 4' "ppl of $text" ppl -m "$model" --special -p "$text" -q
done

# ---- templates ----

cp -r tests/golden/models/hf-text-smollm "$work/folder"
template() { # exit codes, name, pattern; standard input is the template
    cat >"$work/folder/chat_template.jinja"
    "$CCA" export "$work/folder" -q -o "$work/template.gguf" 2>"$work/err"
    ends "$1" "$2" ask -m "$work/template.gguf" -p Text -n 1 -q --no-kv 'Who?'
    stderr_has "$2: is told" "$3"
    ends "$1" "$2: chat" chat -m "$work/template.gguf" -n 1 -q <<<'Who?'
}
memory_kb=2000000
template 3 'loops inside loops' 'takes too (much memory|many steps)' <<'END'
{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}
END
template 3 'a macro that calls itself' 'levels inside each other' <<'END'
{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}
END
template 3 'a gigabyte' 'takes too (much memory|many steps)' <<<"{{ 'x' * 1000000000 }}"
template 3 'a text that doubles' 'takes too (much memory|many steps)' <<'END'
{% set n = namespace(x='abcdefgh') %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}
END
template 3 'a list that holds itself' 'takes too|levels inside' <<'END'
{% set l = [1] %}{% set _ = l.append(l) %}{{ l }}{{ l | tojson }}
END
{ printf '{%% if 1 %%}%.0s' $(seq 5000) && printf '{%% endif %%}%.0s' $(seq 5000); } >"$work/deep"
template 3 'deep blocks' 'inside each other' <"$work/deep"
{ printf '{{ ' && printf '(%.0s' $(seq 20000) && printf 1 && printf ')%.0s' $(seq 20000) && printf ' }}'; } >"$work/deep"
template 3 'deep brackets' 'too many brackets are open' <"$work/deep"
head -c 10000000 /dev/zero | tr '\0' 'x' >"$work/deep"
template 3 'ten megabytes' 'has 10000000 bytes, more than 262144' <"$work/deep"
{ printf '{{ 1' && printf ' + 1%.0s' $(seq 50000) && printf ' }}'; } >"$work/deep"
template '0 3' 'a long sum' . <"$work/deep"

# ---- documents ----

memory_kb=3000000 seconds=120
zeros=/dev/zero # a file without end
for c in "generate -n 1" ppl "tokenize --count" "ask -n 1 --chat-template plain Who?" "plan --dry-run" tune; do
    read -ra args <<<"$c"
    ends 5 "${args[0]}: a document without end" "${args[@]}" -m "$model" -f $zeros
    stderr_has 'says how far it was read' 'zero: no memory for the text behind its first [0-9]+ bytes'
done
ends 5 'questions without end' ask -m "$model" -p x -Q $zeros -n 1 --chat-template plain -q
ends 5 'ids without end' ppl -m "$model" --ids $zeros -q
ends 5 'a line without end' ask -m "$model" -p x -i -n 1 --chat-template plain -q <$zeros
ends 5 'a line of chat without end' chat -m "$model" -n 1 --chat-template plain -q <$zeros
head -c 1G /dev/zero | gzip -1 >"$work/gigabyte.gz"
cat "$work"/gigabyte.gz "$work"/gigabyte.gz "$work"/gigabyte.gz "$work"/gigabyte.gz >"$work/bomb.gz"
ends 5 '4 GB in 19 MB' generate -m "$model" -f "$work/bomb.gz" -n 1 -q
stderr_has 'is told by how much was read' 'bomb.gz: no memory for the text behind its first [0-9]+ bytes'
ends 5 'as questions' ask -m "$model" -p x -Q "$work/bomb.gz" -n 1 --chat-template plain -q

yes '' | head -c 10000000 >"$work/lines"
ends 4 '10^7 empty lines' ask -m "$model" -f "$work/lines" -n 1 --chat-template plain -q 'Who?'
ends 4 'as a prompt' generate -m "$model" -f "$work/lines" -n 1 -q
ends 2 'as questions' ask -m "$model" -p x -Q "$work/lines" -n 1 --chat-template plain -q
ends 0 'as lines' ask -m "$model" -p x -i -n 1 --chat-template plain -q <"$work/lines"
ends 0 'as turns' chat -m "$model" -n 1 --chat-template plain -q <"$work/lines"

line() { head -c "$1" /dev/zero | tr '\0' a; }
line 100M >"$work/line"
ends 4 'a line of 100 MB' generate -m "$model" -f "$work/line" -n 1 -q
stderr_has 'and what is taken' 'no place to cut them for SentencePiece, which takes [0-9]+'
if long_enough 'a line of 2 GB'; then
    memory_kb=6000000
    for c in "generate -n 1" ppl "ask -n 1 --chat-template plain Who?" "tokenize --count"; do
        read -ra args <<<"$c"
        ends '4 5' "${args[0]}: a line of 2 GB" "${args[@]}" -m "$model" -f - < <(line 2G)
        ends '4 5' "${args[0]}: one for BPE" "${args[@]}" -m "$work/template.gguf" -f - < <(line 2G)
    done
    ends '4 5' 'a question of 1 GB' ask -m "$model" -p x -Q - -n 1 --chat-template plain -q \
        < <(printf '"' && line 1G && printf '"\n')
    ends '4 5' 'a turn of 1 GB' chat -m "$model" -n 1 --chat-template plain -q < <(line 1G && echo)
    memory_kb=3000000
fi

# ---- bytes that are no text ----

head -c 1000000 /dev/urandom >"$work/noise"
ends 6 'noise' generate -m "$model" -f "$work/noise" -n 1 -q
ends '0 4' 'noise as bytes' tokenize -m "$model" -f "$work/noise" --invalid-utf8 bytes --count
ends '0 4' 'noise with U+FFFD' tokenize -m "$model" -f "$work/noise" --invalid-utf8 replace --count
ends 6 'noise as questions' ask -m "$model" -p x -Q "$work/noise" -n 1 --chat-template plain -q
head -c 3000000 /dev/zero | tr '\0' '\377' >"$work/ones"
ends 6 'ones' generate -m "$model" -f "$work/ones" -n 1 -q
ends 4 'ones as bytes' generate -m "$model" -f "$work/ones" -n 1 -q --invalid-utf8 bytes
head -c 3000000 /dev/zero >"$work/nul"
ends 4 'NUL' generate -m "$model" -f "$work/nul" -n 1 -q
ends '2 6' 'NUL as questions' ask -m "$model" -p x -Q "$work/nul" -n 1 --chat-template plain -q
yes '[' | head -c 2000000 | tr -d '\n' >"$work/deep"
ends 2 'brackets without end as a question' ask -m "$model" -p x -Q "$work/deep" -n 1 --chat-template plain -q
