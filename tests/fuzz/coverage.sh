#!/usr/bin/env bash
# Which lines of the parsers the inputs reach: those of tests/fuzz/seeds, tests/fuzz/corpus and
# build/fuzz/corpus or FUZZ_CORPUS. The arguments are the programs that make fuzz-coverage builds. A line a
# file: lines reached, lines, share; the lines that no input reaches are the lines with a 0 in lines.txt beside the programs.
set -u
cd "$(dirname "$0")/../.." || exit
corpus=${FUZZ_CORPUS:-build/fuzz/corpus}
folder=$(dirname "$1")
objects=()
for program in "$@"; do
    target=${program##*/fuzz_} inputs=()
    for inputs_of in "tests/fuzz/seeds/$target" "tests/fuzz/corpus/$target" "$corpus/$target"; do
        [ -d "$inputs_of" ] && inputs+=("$inputs_of")
    done
    LLVM_PROFILE_FILE=$folder/$target.profraw "$program" -runs=0 -rss_limit_mb=4096 "${inputs[@]}" \
        >"$folder/$target.log" 2>&1 || echo "$target: see $folder/$target.log"
    objects+=(-object "$program")
done
llvm-profdata merge -o "$folder/all.profdata" "$folder"/*.profraw || exit 1

parsers=(gguf/{gguf_parse,gguf_values,config}.c
    export/{safetensors,hf,hf_config,hf_rope,json}.c
    export/{vocab_json,vocab_json_pre,vocab_added,vocab_llama2c,vocab_sentencepiece,llama2c,gguf_source}.c
    text/*.c tokenizer.c
    store.c store_write.c store_cache.c
    jinja/*.c
    cli/args.c cli/input.c base/utf8.c)
llvm-cov show -instr-profile "$folder/all.profdata" "$1" "${objects[@]}" \
    "${parsers[@]}" 2>/dev/null >"$folder/lines.txt"
printf '%-28s %8s %8s %6s\n' file reached lines share
llvm-cov report -instr-profile "$folder/all.profdata" "$1" "${objects[@]}" "${parsers[@]}" 2>/dev/null |
    awk '$1 ~ /\.c$/ { printf "%-28s %8d %8d %5.1f%%\n", $1, $8 - $9, $8, 100 * ($8 - $9) / $8; n += $8; missed += $9 }
         END { printf "%-28s %8d %8d %5.1f%%\n", "all", n - missed, n, 100 * (n - missed) / n }'
