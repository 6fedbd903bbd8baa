#!/usr/bin/env bash
# Packs the program and these scripts for a machine with more cores, where nothing is installed.
#
#     quality/pack.sh quality.tar.xz
#
# There, beside it: the model files and the archive of books. Then
#
#     tar -xf quality.tar.xz && BOOKS=books-valid.tar.xz quality/quality.sh MODEL OUTDIR SECONDS [LABEL=FILE:ATTENTION …]
#
# measures for so many seconds what `make quality-full` adds, and leaves OUTDIR/results.tar, to be
# unpacked in build/quality here. LEVELS='quick full' measures all, DEVICE=cuda on a GPU. Tasks are measured with
#
#     CCA=quality/cca TEXTS_DIR=quality/sources BOOKS=books-valid.tar.xz OUT=OUTDIR quality/tasks.sh LABEL=FILE:ATTENTION …
set -euo pipefail
here=$(dirname "$0")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/quality/lib" "$scratch/quality/sources"
cp -r "$here"/*.sh "$here"/*.awk "$here"/facts.txt "$here"/words.txt "$here"/tasks "$here"/questions "$scratch/quality"
(cd "$here/.." && sed -n 's/^source: //p' quality/questions/*.txt | grep -v '^books/' |
    xargs -I{} cp --parents {} "$scratch/quality/sources")
strip -o "$scratch/quality/lib/cca" "${CCA:-./cca}"
cat >"$scratch/quality/cca" <<'END'
#!/bin/sh
here=$(dirname "$0")
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/lib/cca" "$@"
END
ldd "${CCA:-./cca}" | awk '$3 ~ /^\// && $1 !~ /^lib(c|m|pthread|dl|rt)\.so/ { print $3 }' |
    xargs -I{} cp -L {} "$scratch/quality/lib"
cat >"$scratch/quality/quality.sh" <<'END'
#!/usr/bin/env bash
set -uo pipefail
[ $# -ge 3 ] || { echo "$0 MODEL OUTDIR SECONDS [LABEL=FILE:ATTENTION …]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
export CCA=$here/cca OUT=$2 LIMIT=$3 BOOKS_DIR=$here/books
model=$1
shift 3
cores=$(nproc)
export LONG=${LONG:-$((cores * 3 / 8))} THREADS=${THREADS:-2}
export JOBS=${JOBS:-$(((cores * 7 / 8 - LONG) / THREADS))}
for level in ${LEVELS:-full}; do
    "$here/run.sh" $level "$model" "$@"
    status=$?
done
tar -C "$OUT" --exclude='*.part*' -cf "$OUT/results.tar.part" . &&
    mv "$OUT/results.tar.part" "$OUT/results.tar"
exit $status
END
chmod +x "$scratch"/quality/{cca,quality.sh}
tar -C "$scratch" -cJf "$1" quality
