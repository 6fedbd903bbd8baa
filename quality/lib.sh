# What the scripts here share; sourced by them.
export LC_ALL=C
here=$(dirname "$0")
export OUT=${OUT:-build/quality} CCA=${CCA:-./cca} THREADS=${THREADS:-0}
export BOOKS_DIR=${BOOKS_DIR:-$OUT/books}

# A model by its contents: files that cca did not make have no fingerprint, but a checksum.
fingerprint() { # model file
    local found
    found=$("$CCA" info "$1" --json | sed -n 's/.*"fingerprint": "\([0-9a-f]\{8\}\).*/\1/p')
    [ -n "$found" ] || found=$(printf 'file-%08x' "$(cksum "$1" | cut -d' ' -f1)")
    echo "$found"
}

# Unpacks the archive BOOKS where that is not done yet.
unpack_books() {
    local books=${BOOKS:-../shared/data/books-valid.tar.xz}
    [ -d "$BOOKS_DIR" ] && return
    if [ ! -f "$books" ]; then
        echo "SKIPPED: nothing is measured, $books is not there. BOOKS=FILE names an archive of books."
        exit 0
    fi
    mkdir -p "$BOOKS_DIR.part" && tar -xf "$books" -C "$BOOKS_DIR.part" && mv "$BOOKS_DIR.part" "$BOOKS_DIR" || exit 1
}

# Label, file and attention of each LABEL=FILE:ATTENTION, separated by tabs.
runs() {
    local arg file
    for arg; do
        file=${arg#*=}
        [ -f "${file%%:*}" ] || { echo "$0: ${file%%:*} is not there" >&2; exit 1; }
        printf '%s\t%s\t%s\n' "${arg%%=*}" "${file%%:*}" "${file#*:}"
    done
}

# Runs measure.sh with each line of standard input as its arguments.
lane() { # jobs at a time
    timeout "${LIMIT:-0}" xargs -r -L1 -P"$1" "$here/measure.sh"
}
