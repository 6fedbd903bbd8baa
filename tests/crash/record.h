/* What a command does to the files of a folder, in order: the log from which disk.c makes what a
 * power cut can leave.
 *
 *     record_begin("disk", "log");      // before fork: children go on in it
 *     ... commands, whose calls the linker leads here (--wrap) ...
 *     record_end();
 *     record_log log;
 *     if (record_read(&log, "log")) ...           // record_free(&log)
 *
 * Beside the calls stand the program's promises: OP_BEGIN before a checkpoint, a finished file or
 * an edit is to be there, OP_CLAIM when the program went on as if it were, OP_FAIL when it said
 * that it is not. Names are relative to the folder; what lies elsewhere is not recorded. Calls of
 * libraries (stdio, libedit) are not seen. */
#ifndef CCA_CRASH_RECORD_H
#define CCA_CRASH_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum op_kind {
    OP_CREATE,      /* a: name; inode */
    OP_FORGET,      /* a file without a name has this inode's number now */
    OP_WRITE,       /* inode, at, data */
    OP_SIZE,        /* inode, at: the new size */
    OP_EXTEND,      /* inode, at: the size is at least this */
    OP_PUNCH,       /* inode, at, n */
    OP_RENAME,      /* a to b */
    OP_UNLINK,      /* a */
    OP_MKDIR,       /* a */
    OP_SYNC,        /* inode */
    OP_SYNC_FOLDER, /* a: "" is the folder itself */
    OP_BEGIN,       /* a: of a promise */
    OP_CLAIM,       /* a */
    OP_FAIL,        /* a */
} op_kind;

typedef struct op {
    op_kind kind;
    uint64_t inode, at, n;
    const char *a, *b;
    const uint8_t *data; /* n bytes of a write */
} op;

typedef struct record_log {
    op *ops;
    size_t n;
    uint8_t *bytes; /* that the ops point into */
} record_log;

bool record_begin(const char *folder, const char *log);
void record_end(void);
bool record_read(record_log *out, const char *log);
void record_free(record_log *log);
const char *record_kind(op_kind kind);

#endif
