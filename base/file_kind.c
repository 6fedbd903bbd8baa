#include "base/file_kind.h"

#include "base/utf8.h"

#include <string.h>
#include <strings.h>

enum { LOOKED_AT = 512 };

/* Bytes at a place, with their number, for some hold NUL. */
typedef struct sign {
    size_t at;
    const char *bytes;
    size_t size;
    cca_file_kind kind;
} sign;

#define AT(place, text) .at = (place), .bytes = (text), .size = sizeof(text) - 1
#define UNPACK(program) program " unpacks it"
#define ICONV(encoding) "iconv -f " encoding " -t UTF-8 FILE makes UTF-8 of it"
#define IMAGE           "a program for recognising text, such as tesseract, makes text of it"

/* The first that fits counts. */
static const sign signs[] = {
    {AT(0, "version https://git-lfs.github.com/spec/"),
     .kind = {"a Git LFS pointer in place of the file", "git lfs pull brings the file",
              "git lfs pull brings the file", false}},
    {AT(0, "%PDF-"), .kind = {"a PDF", "pdftotext FILE makes text of it", NULL, false}},
    {AT(0, "PK\3\4"),
     .kind = {"a zip archive, as docx, odt and epub are",
              "pandoc -t plain FILE makes text of those, unzip unpacks others", NULL, false}},
    {AT(0, "PK\5\6"), .kind = {"an empty zip archive", "there is no text in it", NULL, false}},
    {AT(0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
     .kind = {"an Office document (doc, xls, ppt)",
              "libreoffice --headless --convert-to txt FILE makes text of a doc", NULL, false}},
    {AT(0, "{\\rtf"), .kind = {"RTF", "pandoc -f rtf -t plain FILE makes text of it", NULL, false}},
    {AT(0, "%!PS"), .kind = {"PostScript", "ps2ascii FILE makes text of it", NULL, false}},
    {AT(0, "\xff\xfe\0\0"), .kind = {"UTF-32", ICONV("UTF-32"), NULL, false}},
    {AT(0, "\0\0\xfe\xff"), .kind = {"UTF-32", ICONV("UTF-32"), NULL, false}},
    {AT(0, "\xff\xfe"), .kind = {"UTF-16", ICONV("UTF-16"), NULL, false}},
    {AT(0, "\xfe\xff"), .kind = {"UTF-16", ICONV("UTF-16"), NULL, false}},
    {AT(0, "\xfd"
           "7zXZ"),
     .kind = {"xz data", UNPACK("xz -dc FILE"), NULL, false}},
    {AT(0, "\x28\xb5\x2f\xfd"), .kind = {"zstd data", UNPACK("zstd -dc FILE"), NULL, false}},
    {AT(0, "\x1f\x8b"), .kind = {"gzip data", UNPACK("gzip -dc FILE"), NULL, false}},
    {AT(4, "1AY&SY"), .kind = {"bzip2 data", UNPACK("bzip2 -dc FILE"), NULL, false}},
    {AT(0, "7z\xbc\xaf\x27\x1c"), .kind = {"a 7z archive", UNPACK("7z x FILE"), NULL, false}},
    {AT(0, "Rar!\x1a\7"), .kind = {"a RAR archive", UNPACK("unrar x FILE"), NULL, false}},
    {AT(257, "ustar"), .kind = {"a tar archive", UNPACK("tar -xf FILE"), NULL, false}},
    {AT(0, "\x89PNG"), .kind = {"an image (PNG)", IMAGE, NULL, false}},
    {AT(0, "\xff\xd8\xff"), .kind = {"an image (JPEG)", IMAGE, NULL, false}},
    {AT(0, "GIF87a"), .kind = {"an image (GIF)", IMAGE, NULL, false}},
    {AT(0, "GIF89a"), .kind = {"an image (GIF)", IMAGE, NULL, false}},
    {AT(0, "II*\0"), .kind = {"an image (TIFF)", IMAGE, NULL, false}},
    {AT(0, "MM\0*"), .kind = {"an image (TIFF)", IMAGE, NULL, false}},
    {AT(0, "GGUF"), .kind = {"a model file (GGUF)", "-m takes it", NULL, false}},
    {AT(0, "\x7f"
           "ELF"),
     .kind = {"a program (ELF)", "strings FILE shows texts in it", NULL, false}},
    {AT(0, "SQLite format 3"),
     .kind = {"a database (SQLite)", "sqlite3 FILE .dump makes text of it", NULL, false}},
    {AT(0, "PAR1"), .kind = {"a table (Parquet)", "export it as text, such as CSV", NULL, false}},
};

static const cca_file_kind html = {
    "HTML",
    "its tags are read as text; w3m -dump or pandoc -f html -t plain makes plain text of it",
    "what came in place of the file may be a page that says why: get the file again", true};
static const cca_file_kind utf16le = {"UTF-16", ICONV("UTF-16LE"), NULL, false};
static const cca_file_kind utf16be = {"UTF-16", ICONV("UTF-16BE"), NULL, false};
static const cca_file_kind data = {"data, no text", "whatever wrote it may export text", NULL,
                                   false};

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

size_t cca_file_lead(const void *bytes, size_t size) {
    const char *text = bytes;
    size_t at = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (at < size && is_blank(text[at])) at++;
    return at;
}

/* Whether text begins with a word of a page, in capitals or not. */
static bool begins(const char *text, size_t size, const char *word) {
    size_t n = strlen(word);
    return n <= size && strncasecmp(text, word, n) == 0;
}

/* A page, behind what may stand before it: comments, and what XML says of itself. */
static bool is_html(const char *text, size_t size) {
    for (;;) {
        size_t lead = cca_file_lead(text, size);
        text += lead, size -= lead;
        if (begins(text, size, "<!doctype html") || begins(text, size, "<html")) return true;
        const char *close = begins(text, size, "<?xml") ? "?>" : "-->", *end = NULL;
        if (begins(text, size, "<!--") || *close == '?') {
            end = memmem(text, size, close, strlen(close));
        }
        if (!end) return false;
        size -= (size_t)(end - text) + strlen(close);
        text = end + strlen(close);
    }
}

/* Whether every second byte, from `zero` on, is NUL, and none of the others: UTF-16 of a western
 * language, without a byte order mark. */
static bool alternates(const char *text, size_t size, size_t zero) {
    enum { ENOUGH = 8 };
    if (size < ENOUGH) return false;
    for (size_t i = 0; i < size; i++) {
        if ((text[i] == '\0') != (i % 2 == zero)) return false;
    }
    return true;
}

const cca_file_kind *cca_file_kind_of(const void *bytes, size_t size) {
    const char *text = bytes;
    size_t seen = size < LOOKED_AT ? size : LOOKED_AT;
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        const sign *s = &signs[i];
        if (s->at + s->size <= seen && memcmp(text + s->at, s->bytes, s->size) == 0) {
            return &s->kind;
        }
    }
    return is_html(text, seen) ? &html : NULL;
}

const cca_file_kind *cca_file_no_text(const void *bytes, size_t size) {
    const char *text = bytes;
    const cca_file_kind *kind = cca_file_kind_of(bytes, size);
    if (kind) return kind;
    size_t seen = size < LOOKED_AT ? size : LOOKED_AT;
    size_t few = seen < 32 ? seen : 32;
    if (alternates(text, few, 1)) return &utf16le;
    if (alternates(text, few, 0)) return &utf16be;
    size_t valid = cca_utf8_valid(text, seen);
    bool text_so_far = seen - valid == cca_utf8_unfinished(text, seen);
    return !text_so_far && memchr(text, '\0', seen) ? &data : NULL;
}
