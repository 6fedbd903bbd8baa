#!/usr/bin/env bash
# Tokenizers as others write them: added tokens in each of the files that list them, normalised ones,
# more than the model has; BOS written out; hostile names.
set -u
. tests/cli/lib.sh

models=tests/golden/models

# A model with random weights for n tokens and the tokenizer in a file.
model_for() { # name, n, tokenizer
    cca export --random "32,1,2,2,64,$2" --tokenizer "$3" -o "$work/$1.gguf"
    [ "$code" = 0 ] || fail "export with $3" "$(cat "$work/err")"
}

ids_are() { # name, model, ids, further arguments of tokenize
    local name=$1 model=$2 ids=$3
    shift 3
    cca tokenize -m "$work/$model.gguf" "$@"
    if [ "$(sed 's/ *$//' "$work/out")" = "$ids" ]; then pass "$name"; else fail "$name" "$ids, not $(cat "$work/out" "$work/err")"; fi
}

# An entry of added_tokens.
added() { # id, text, normalized, special
    printf '{"id": %d, "content": "%s", "single_word": false, "lstrip": false, "rstrip": false, "normalized": %s, "special": %s}' "$@"
}

# ---- normalised and not, with the ids of Hugging Face's tokenizers ----

before=
ok=0 wrong=
while IFS=$'\t' read -r base normalized text ids; do
    if [ "$base $normalized" != "$before" ]; then
        before="$base $normalized"
        case $base in hf-text-llama2 | hf-text-metaspace*) first=640 ;; hf-text-llama3) first=603 ;; hf-text-qwen2) first=605 ;; *) first=600 ;; esac
        change=
        [ "$base" = "${base%-always}" ] || change='s/"prepend_scheme": "first"/"prepend_scheme": "always"/'
        mkdir -p "$work/$base"
        sed "s/\"added_tokens\": \[/&$(added $first '<honk>' "$normalized" false), $(added $((first + 1)) '<café>' "$normalized" false),$(added $((first + 2)) '<sp>' false true),/;
            $change" "$models/${base%-always}/tokenizer.json" >"$work/$base/tokenizer.json"
        model_for added 800 "$work/$base/tokenizer.json"
    fi
    cca tokenize -m "$work/added.gguf" --no-bos --special -e -p "$text"
    if [ "$(sed 's/ *$//' "$work/out")" = "$ids" ]; then ok=$((ok + 1)); else wrong+="$base $normalized '$text': $ids, not $(cat "$work/out")"$'\n'; fi
done <"$models/added.ids"
if [ -z "$wrong" ] && [ $ok = "$(wc -l <"$models/added.ids")" ]; then pass 'added tokens, normalised or not'; else fail 'added tokens, normalised or not' "$wrong"; fi

# ---- beside a tokenizer.model ----

# The same two tokens by each of the files; the original has 640 pieces.
folder() { # name
    mkdir -p "$work/$1"
    gzip -dc tests/golden/tokenizer/llama-like.model.gz >"$work/$1/tokenizer.model"
}
hello='641 338 265 13 485 286 379 266 435 265 421 640 13'
prepended='641 419 338 265 13 485 286 379 266 435 265 421 640 419 13'
both="$(added 640 '<|im_end|>' false true), $(added 641 '<|im_start|>' false true)"
decoder=$(printf '"640": %s, "641": %s' "$(added 640 '<|im_end|>' false true)" "$(added 641 '<|im_start|>' false true)")
folder map
echo '{"<|im_end|>": 640, "<|im_start|>": 641}' >"$work/map/added_tokens.json"
folder json
sed "s/\"added_tokens\": \[/&$both,/" $models/hf-text-llama2/tokenizer.json >"$work/json/tokenizer.json"
folder decoder
echo "{\"added_tokens_decoder\": {\"1\": $(added 1 '<s>' false true), $decoder}}" >"$work/decoder/tokenizer_config.json"
mkdir "$work/alone"
cp $models/hf-text-llama2/tokenizer.json "$work/alone"
cp "$work/decoder/tokenizer_config.json" "$work/alone"
for name in map json decoder; do
    model_for $name 642 "$work/$name/tokenizer.model"
    [ $name = map ] && want=$hello || want=$prepended # nothing says how beside a map
    ids_are "added tokens of $name" $name "$want" --special --no-bos -e -p '<|im_start|>user\nHello there<|im_end|>\n'
done
model_for alone 642 "$work/alone/tokenizer.json"
ids_are 'added_tokens_decoder beside tokenizer.json' alone "$prepended" --special --no-bos -e -p '<|im_start|>user\nHello there<|im_end|>\n'

# Found in the normalised text, as with tokenizer.json alone.
folder normal
sed "s/\"added_tokens\": \[/&$(added 640 '<honk>' true false),$(added 642 '<sp>' false true),/" $models/hf-text-llama2/tokenizer.json >"$work/normal/tokenizer.json"
model_for normal 643 "$work/normal/tokenizer.model"
grep -P '^hf-text-llama2\ttrue' $models/added.ids | grep -v caf | while IFS=$'\t' read -r _ _ text ids; do
    ids_are "normalised beside tokenizer.model: $text" normal "$ids" --no-bos --special -e -p "$text"
done | tee "$work/lines"
grep -q '^FAIL' "$work/lines" && any_failed=1

# What is between has no text; what the model has no weights for is left out, and told.
folder gap
echo '{"<b>": 645}' >"$work/gap/added_tokens.json"
model_for gap 650 "$work/gap/tokenizer.model"
ids_are 'a gap' gap '645' --no-bos -p '<b>'
model_for few 640 "$work/gap/tokenizer.model"
stderr_has 'tokens that the model does not have' 'warning: .*added that the model does not have'
ids_are 'are none' few "$("$CCA" tokenize -m "$work/few.gguf" -p '<b>')" -p '<b>' --special

# What stands in front of a text behind a token is as tokenizer.json, or the configuration, says.
folder newer
echo "{\"legacy\": false, \"added_tokens_decoder\": {$decoder}}" >"$work/newer/tokenizer_config.json"
model_for newer 642 "$work/newer/tokenizer.model"
ids_are 'nothing, in the newer way' newer "$hello" --special --no-bos -e -p '<|im_start|>user\nHello there<|im_end|>\n'
ids_are 'but in front of a text, as SentencePiece does' newer '419 419 419 338' --no-bos -p '  us'
gzip -dc tests/golden/chat/mistral.model.gz >"$work/mistral.model"
for legacy in '' '"legacy": true'; do
    mkdir -p "$work/third"
    cp "$work/mistral.model" "$work/third/tokenizer.model"
    echo "{$legacy}" >"$work/third/tokenizer_config.json"
    model_for third 420 "$work/third/tokenizer.model"
    [ "$legacy" ] && want='3 327 327 391 329 307 339' || want='3 327 391 329 307 339'
    ids_are "Mistral's third version, {$legacy}" third "$want" --special --no-bos -p '[INST] Hello'
done
folder metaspace
sed "s/\"added_tokens\": \[/&$both,/" $models/hf-text-metaspace/tokenizer.json >"$work/metaspace/tokenizer.json"
model_for metaspace 642 "$work/metaspace/tokenizer.model"
ids_are 'one that is there already' metaspace '419 338' --no-bos -p ' us'

# Contradictions are refused.
folder other
echo "{\"added_tokens_decoder\": {\"1\": $(added 1 '<t>' false true)}}" >"$work/other/tokenizer_config.json"
expect 3 'another text for an id' export --random 32,1,2,2,64,642 --tokenizer "$work/other/tokenizer.model" -o "$work/x.gguf"
stderr_has 'names both' 'tokenizer_config\.json: added_tokens: "<t>" has the id 1, which is "<s>"'
folder strip
echo '{"added_tokens_decoder": {"640": {"content": "<t>", "normalized": false, "rstrip": true}, "641": {"content": "<u>", "normalized": false, "lstrip": true}}}' >"$work/strip/tokenizer_config.json"
model_for strip 642 "$work/strip/tokenizer.model"
b=$("$CCA" tokenize -m "$work/strip.gguf" --no-bos -p 'x<t>b')
ids_are 'a token that takes blanks behind it' strip "$b" --no-bos -e -p 'x<t> \n b'
ids_are 'and before it' strip "${b/640/641}" --no-bos -e -p 'x \n <u>b'
ids_are 'and none that it does not say it takes' strip '641 419 419' --no-bos -p '<u> '
echo '{"added_tokens_decoder": {"265": {"content": "er", "lstrip": true}}}' >"$work/strip/tokenizer_config.json"
expect 3 'one that SentencePiece finds itself' export --random 32,1,2,2,64,642 --tokenizer "$work/strip/tokenizer.model" -o "$work/x.gguf"
stderr_has 'names the field' 'lstrip of "er" is true'

# ---- BOS written out ----

model_for llama3 603 $models/hf-text-llama3/tokenizer.json
for pair in "json <s> 1" "llama3 <|begin_of_text|> 600"; do
    read -r name bos id <<<"$pair"
    plain=$("$CCA" tokenize -m "$work/$name.gguf" -p 'Hello')
    ids_are "$name: $bos is the one that stands there" $name "$plain" --special -p "${bos}Hello"
    ids_are "$name: a second one is kept" $name "$id $plain" --special -p "$bos${bos}Hello"
    ids_are "$name: alone" $name "${plain#* }" --no-bos -p 'Hello'
    expect 0 "$name: ppl" ppl -m "$work/$name.gguf" --special -p "${bos}Hello there" --json -q
    n=$("$CCA" tokenize -m "$work/$name.gguf" --no-bos --count -p 'Hello there')
    stdout_has "$name: it is not scored" "\"scored\": $n,"
done

# ---- names of strangers ----

printf 'a\033]0;title\007\302\233b' >"$work/name"
name=$work/$(cat "$work/name")
cp "$work/json.gguf" "$name.gguf"
expect 0 'a file name with control characters' info "$name.gguf"
stdout_has 'is escaped' 'a\\x1b\]0;title\\x07\\x9bb\.gguf'
check 'no control character' test "$(tr -d '[:print:]\n\200-\377' <"$work/out" | wc -c)" = 0
expect 3 'and where it is no model' info "$name"
stderr_has 'is escaped, too' 'a\\x1b\]0;title\\x07\\x9bb: '
expect 0 'in JSON' info --json "$name.gguf"
stdout_has 'by its own escapes' 'a\\u001[bB]\]0;title\\u0007\\u009bb\.gguf'
