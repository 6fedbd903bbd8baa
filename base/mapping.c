#include "base/mapping.h"

#include "base/again.h"
#include "base/file_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static cca_status map(cca_mapping *out, int fd, const char *path, cca_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: cannot stat: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) return cca_fail(err, CCA_BAD_MODEL, "%s: is a folder", path);
    if (!S_ISREG(st.st_mode)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: is not a regular file", path);
    }
    if (st.st_size == 0) return cca_fail(err, CCA_BAD_MODEL, "%s: the file is empty", path);
    size_t size = (size_t)st.st_size;
    void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return cca_fail(err, errno == ENOMEM ? CCA_NO_MEMORY : CCA_BAD_MODEL,
                        "%s: cannot map %zu bytes: %s", path, size, strerror(errno));
    }
    *out = (cca_mapping){.data = data, .size = size};
    return CCA_OK;
}

cca_status cca_mapping_open(cca_mapping *out, const char *path, cca_error *err) {
    *out = (cca_mapping){0};
    /* O_NONBLOCK: a named pipe without a writer is refused, not waited for. */
    int fd = cca_open_again(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0) return cca_fail(err, CCA_BAD_MODEL, "%s: cannot open: %s", path, strerror(errno));
    cca_status status = map(out, fd, path, err);
    close(fd);
    const cca_file_kind *kind = status ? NULL : cca_file_kind_of(out->data, out->size);
    if (!kind || !kind->in_place) return status;
    cca_mapping_close(out);
    return cca_fail(err, CCA_BAD_MODEL, "%s: is %s; %s", path, kind->name, kind->in_place);
}

void cca_mapping_close(cca_mapping *m) {
    if (m->data) munmap((void *)m->data, m->size);
    *m = (cca_mapping){0};
}

void cca_mapping_forget(const void *data, size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t skip = (page - (uintptr_t)data % page) % page; /* up to the first whole page */
    if (bytes < skip + page) return;
    (void)madvise((char *)data + skip, (bytes - skip) / page * page, MADV_DONTNEED);
}

void cca_mapping_want(const void *data, size_t bytes) {
    size_t before = (uintptr_t)data % (size_t)sysconf(_SC_PAGESIZE); /* in its page */
    (void)madvise((char *)data - before, bytes + before, MADV_WILLNEED);
}

/* ---- whose an address is ---- */

/* The hexadecimal number that text begins with; *text goes behind it. */
static uintptr_t take_hex(const char **text) {
    uintptr_t n = 0;
    for (;; (*text)++) {
        char c = **text;
        if (c >= '0' && c <= '9') {
            n = n * 16 + (uintptr_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            n = n * 16 + (uintptr_t)(c - 'a' + 10);
        } else {
            return n;
        }
    }
}

/* The file in a line "begin-end rights offset device inode   /path", if it holds an address. */
static const char *file_in(const char *line, uintptr_t address) {
    uintptr_t begin = take_hex(&line);
    if (*line++ != '-') return NULL;
    uintptr_t end = take_hex(&line);
    return begin <= address && address < end ? strchr(line, '/') : NULL;
}

/* Only what a signal handler may call. */
bool cca_mapping_file_at(char *out, size_t size, const void *address) {
    enum { LINE = 4096 + 128 }; /* the longest path, and what stands before it */
    char line[LINE], part[1024];
    const char *name = NULL;
    size_t n = 0;
    ssize_t got;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    while (!name && (got = read(fd, part, sizeof part)) > 0) {
        for (ssize_t i = 0; i < got && !name; i++) {
            if (part[i] != '\n') {
                if (n < LINE - 1) line[n++] = part[i];
                continue;
            }
            line[n] = '\0';
            n = 0;
            name = file_in(line, (uintptr_t)address);
        }
    }
    close(fd);
    if (!name || size == 0) return false;
    for (n = 0; name[n] && n + 1 < size; n++) {
        bool control = (unsigned char)name[n] < ' ' || name[n] == 0x7f;
        out[n] = control ? '?' : name[n];
    }
    out[n] = '\0';
    return true;
}
