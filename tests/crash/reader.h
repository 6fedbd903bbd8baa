/* Opens what a power cut left as the program would, and tells what is there.
 *
 *     reader_open("model.gguf", "recall", &err);            // for sessions
 *     version v;
 *     char why[1024];
 *     if (!reader_read(&v, "/tmp/disk/s.ccas", why)) ...    // refused, or read otherwise than said
 *     version_free(&v);
 *     reader_close(); */
#ifndef CCA_CRASH_READER_H
#define CCA_CRASH_READER_H

#include "base/base.h"

/* What a file says: of a session a hash of each checkpoint, over its ids, rows, window and notes;
 * of another file one of its bytes. */
typedef struct version {
    bool there, refused;
    uint64_t *hashes;
    size_t n;
    int64_t last; /* the last checkpoint's position; of other files 0; -1: none */
} version;

/* A model of tests, and the attention of its sessions: groups of 4, windows of 8, recall of 8. */
bool reader_open(const char *model, const char *attn, cca_error *err);
void reader_close(void);

/* All of the file, with its checksums; of a session the last checkpoint is loaded, too, and the
 * first time that one of its kind is seen its logits are compared with those of its tokens read
 * anew. False, with a word on it, where that goes wrong; a refusal (of a file that is no whole
 * session) is no such. */
bool reader_read(version *out, const char *path, char why[1024]);
bool version_has(const version *v, uint64_t hash);
void version_free(version *v);

#endif
