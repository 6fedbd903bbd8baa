#!/usr/bin/env bash
# make install and uninstall: what is there, that a program builds with it, that nothing remains.
set -u
. tests/cli/lib.sh

if [[ ${MAKEFLAGS:-} == *-fsanitize* ]]; then
    skip 'installation' 'a program of a user is built without sanitizers'
    exit
fi
root=$work/root
prefix=/opt/cca
make_quietly() { # target
    make -s "$@" DESTDIR="$root" PREFIX="$prefix" >"$work/log" 2>&1
}

check 'make install' make_quietly install
for file in bin/cca lib/libcca.a lib/libcca.so lib/pkgconfig/cca.pc include/cca/engine.h \
    share/man/man1/cca.1; do
    check "installs $file" test -f "$root$prefix/$file"
done
version=$("$CCA" version)
check 'the installed program runs' test "$("$root$prefix/bin/cca" version)" = "$version"
command -v groff >/dev/null &&
    check 'the man page has no faults' test -z "$(LC_ALL=C.UTF-8 groff -t -man -ww -Tutf8 -z man/cca.1 2>&1)"

# Its paths are those of the final place; the system root leads them to where they are now.
flags() {
    PKG_CONFIG_PATH=$root$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root pkg-config "$@" cca
}
check 'pkg-config knows the version' test "cca $(flags --modversion)" = "$version"
exported=$(nm -D --defined-only "$root$prefix/lib/libcca.so" | awk '{print $3}' | grep -v '^cca_')
check 'the library exports cca_ symbols only' test -z "$exported"

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
make_random 32,2,4,2,64,640 --tokenizer "$work/tokenizer.model"
wanted=$("$CCA" generate -m "$random" -p 'Hello world' -n 8 --temp 0 -q 2>/dev/null)
example() { # name, flags
    local name=$1
    shift
    check "the example builds with $name" gcc -std=c17 -Wall -Wextra -Werror examples/complete.c "$@" \
        -o "$work/complete"
    check "and continues a text as the program does" test \
        "$(LD_LIBRARY_PATH=$root$prefix/lib "$work/complete" "$random" 'Hello world' 8)" = "$wanted"
}
example libcca.so $(flags --cflags --libs)
check 'it uses the shared library' grep -q 'libcca\.so\.' <(objdump -p "$work/complete")
example libcca.a $(flags --cflags) "$root$prefix/lib/libcca.a" $(flags --static --libs | sed 's/-lcca\b//')

# What the headers' first comments show is a program, too, with a shorter context.
example_of() { # header, parameters of its function
    printf 'static void use_%s(%s) {\n' "$1" "$2"
    sed '/\*\//q' "$root$prefix/include/cca/$1.h" | sed -n 's/^ \*     //p' | sed 's/^\.\.\..*//; s/ \.\.\..*/ exit(1);/; s/"model.gguf"/model/; s/131072/64/
        /cca_session_free/i puts(logits[0] < 100 && logits[639] < 100 ? "finite" : "not finite");'
    printf '}\n'
}
{
    printf '#include <cca/chat.h>\n#include <cca/engine.h>\n#include <cca/gguf.h>\n'
    printf '#include <cca/sampler.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n'
    example_of engine 'const char *model, int32_t *ids, int64_t n, int32_t next'
    example_of gguf 'const char *model'
    example_of tokenizer 'const cca_gguf *file, const char *text, size_t size, cca_error err'
    example_of sampler 'int64_t vocab_size, const int32_t *prompt, int i, const float *logits, cca_error err'
    example_of chat 'const cca_gguf *file, const cca_tokenizer *tok, const char *document, size_t size, cca_error err'
    example_of store 'const int32_t *ids, cca_error err'
    printf 'int main(int argc, char **argv) {\nint32_t ids[] = {5, 6, 7};\n'
    printf 'if (argc == 2) use_engine(argv[1], ids, 3, 8);\nreturn argc != 2;\n}\n'
} >"$work/header.c"
read -ra all <<<"$(flags --cflags --libs)"
check 'the examples of the headers build' gcc -std=c17 -Wall -Wextra -Werror -Wno-unused "$work/header.c" \
    "${all[@]}" -o "$work/header"
check "and engine.h's runs" test "$(LD_LIBRARY_PATH=$root$prefix/lib "$work/header" "$random")" = finite

check 'make uninstall' make_quietly uninstall
check 'nothing remains' test -z "$(find "$root" ! -type d)"
check 'nor a folder of its own' test -z "$(find "$root" -type d -name cca -path '*/include/*')"
