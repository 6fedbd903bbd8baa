#!/usr/bin/env bash
# Includes point downwards only: each file may include headers of its own level or below, and the
# command line sees no matrices and no devices.
set -u
. tests/cli/lib.sh

level() { # of a file
    case $1 in
    base.*) echo 0 ;;
    dtype.* | cca_rule.h | workers.* | mapping.* | memory.* | store.*) echo 1 ;;
    cca_keys.h | gguf*.* | sampler.*) echo 2 ;;
    kernels/* | tokenizer*.* | spm*.* | bpe*.* | config.*) echo 3 ;;
    chat.* | backend*.* | nocuda.c | *.cu | *.cuh | peaks.*) echo 4 ;;
    cca.*) echo 5 ;;
    saved.* | model.* | export/*) echo 6 ;;
    speed.*) echo 7 ;;
    engine.* | selftest*.*) echo 8 ;;
    cli/* | run.c) echo 9 ;;
    *) echo "unknown file: $1" >&2; echo 99 ;;
    esac
}

bad=0
for file in *.[ch] *.cc *.cu *.cuh cli/*.[ch] export/*.[ch] kernels/*.[ch]; do
    own=$(level "$file")
    [ "$own" = 99 ] && bad=1
    for header in $(sed -n 's/^#include "\(.*\)"$/\1/p' "$file"); do
        if [ "$(level "$header")" -gt "$own" ]; then
            echo "$file includes $header, which lies above it"
            bad=1
        fi
        case $own:$header in
        9:backend* | 9:cca.h | 9:cca_keys.h | 9:model.h | 9:speed.h | 9:selftest_kernels.h | 9:kernels/*)
            echo "$file includes $header: the command line knows no matrices"
            bad=1 ;;
        [0123]:tokenizer.h | [45]:gguf.h | 4:config.h)
            case $file in tokenizer* | spm* | bpe*) continue ;; esac
            echo "$file includes $header, a leaf of another branch"
            bad=1 ;;
        esac
    done
done
grep -nE 'cuda|device' model.c cca.c && { echo "the model and the cache know no device"; bad=1; }
grep -nE '\bgetenv\b' $(ls *.c *.cu kernels/*.c export/*.c) && { echo "the library reads no environment"; bad=1; }
check "includes point downwards" test "$bad" = 0
