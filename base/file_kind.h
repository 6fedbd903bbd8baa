/* What a file is, by its first bytes, where it is not what people took it for.
 *
 *     const cca_file_kind *kind = cca_file_kind_of(bytes, size);
 *     if (kind) printf("%s: is %s; %s\n", path, kind->name, kind->advice);
 *
 * The one list of formats that are known as not being plain text, and of what makes plain text of
 * them. */
#ifndef CCA_FILE_KIND_H
#define CCA_FILE_KIND_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cca_file_kind {
    const char *name;     /* "a PDF" */
    const char *advice;   /* for who wants its text: "pdftotext FILE makes text of it" */
    const char *in_place; /* the same for who wants the file in whose place it stands; or NULL */
    bool readable;        /* plain text, too, if not as people mean it */
} cca_file_kind;

/* NULL: none of those in the list, as plain text, JSON and other data are. Looks at no more than a
 * few hundred bytes. */
const cca_file_kind *cca_file_kind_of(const void *bytes, size_t size);
/* The same for bytes that should be a text: of others, data and UTF-16 without a mark are known. */
const cca_file_kind *cca_file_no_text(const void *bytes, size_t size);

/* Bytes of a byte order mark of UTF-8 and white space that text starts with. */
size_t cca_file_lead(const void *bytes, size_t size);

#endif
