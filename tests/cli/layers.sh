#!/usr/bin/env bash
# Includes point downwards only: a folder is a level, each file at the top is a level, too, and a
# file includes headers of its own level or of those below it.
set -u
. tests/cli/lib.sh

level() { # of a file
    case $1 in
    base/* | cca_rule.h | share_plan.*) echo 0 ;;
    backend/*/*) echo 2 ;;
    backend/*) echo 1 ;;
    likelihood.* | sampler.* | lookup.* | store.* | store_parts.h | store_write.c | layer.*) echo 1 ;;
    gguf/* | jinja/*) echo 2 ;;
    text/*) echo 3 ;;
    cca.* | cca_parts.h | cca_share.* | cca_spread.* | cca_stored.c | cca_cuda.cu | disk_rows.* | near_rows.*) echo 3 ;;
    tokenizer.* | store_cache.*) echo 4 ;;
    chat.* | chat_template.* | model.* | model_parts.h | model_share.* | model_stream.* | rope.*) echo 5 ;;
    check/* | export/*) echo 6 ;;
    engine.* | engine_parts.h | session_ranks.h | session_score.c | session_share.c | stored_session.c | attention_*) echo 7 ;;
    cli/tune/*) echo 10 ;;
    cli/*/*) echo 9 ;;
    cli/*) echo 8 ;;
    run.c) echo 9 ;;
    *) echo "unknown file: $1" >&2; echo 99 ;;
    esac
}

sources=$(find . -path ./build -prune -o -path ./tests -prune -o -path ./examples -prune -o \
    -name '*.[ch]' -print -o -name '*.cc' -print -o -name '*.cu' -print -o -name '*.cuh' -print |
    sed 's|^\./||' | sort)
bad=0
for file in $sources; do
    own=$(level "$file")
    [ "$own" = 99 ] && bad=1
    for header in $(sed -n 's/^#include "\(.*\)"$/\1/p' "$file"); do
        if [ "$(level "$header")" -gt "$own" ]; then
            echo "$file includes $header, which lies above it"
            bad=1
        fi
        case $file:$header in
        cli/*:backend/* | cli/*:cca.h | cli/*:model.h | run.c:backend/* | run.c:cca.h | run.c:model.h)
            echo "$file includes $header: the command line knows no matrices"
            bad=1 ;;
        esac
    done
done
grep -nE 'cuda|device' model.c cca.c && { echo "the model and the cache know no device"; bad=1; }
# shellcheck disable=SC2046,SC2086
grep -nE '"(blk\.|token_embd|output(_norm)?\.|rope_freqs|attn_(q|k|v|norm|output)|ffn_|self_attn|mlp\.|lm_head|embed_tok)' \
    $(printf '%s\n' $sources | grep -v '^layer\.c$') | grep -v ': \* ' &&
    { echo "layer.c alone names tensors"; bad=1; }
# shellcheck disable=SC2086
grep -nE '\bgetenv\b' $(printf '%s\n' $sources | grep -v '^cli/\|^run\.c$') &&
    { echo "the library reads no environment"; bad=1; }
check "includes point downwards" test "$bad" = 0
