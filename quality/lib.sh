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

# Makes a document of nearly so many tokens, OUT.txt, and sets `fitted` to its bytes and `filled` to its tokens: bytes
# are adjusted until they fill the room; where no sentence ends at the right place, the longest that fits is taken.
# MAKE BYTES makes it.
fit() { # room, make, out, model, bytes to begin with
    local room=$1 make=$2 bytes=$5 tokens
    fitted=0 filled=0
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        $make $bytes
        tokens=$("$CCA" tokenize -m "$4" -f "$3.txt" --count)
        [ "$tokens" -le $room ] && [ "$tokens" -gt $filled ] && filled=$tokens fitted=$bytes
        [ "$tokens" -le $room ] && [ "$tokens" -ge $((room - 64 - room / 200)) ] && break
        bytes=$((bytes + (room - 32 - room / 400 - tokens) * bytes / tokens))
    done
    [ $filled -gt 0 ] || { echo "$0: no document of $room tokens" >&2; exit 1; }
    [ $bytes -eq $fitted ] || $make $fitted
}

# Runs a script with each line of standard input as its arguments.
lane() { # jobs at a time, script
    timeout "${LIMIT:-0}" xargs -r -L1 -P"$1" "$here/${2:-measure.sh}"
}
