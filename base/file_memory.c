#include "base/file_memory.h"

#include "base/again.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Where the file system knows no files without a name, one that loses it at once. */
static int open_nameless(const char *folder) {
    int fd = cca_open_again(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || errno == ENOENT || errno == EACCES || errno == ENOSPC) return fd;
    char *name;
    if (asprintf(&name, "%s/rows.XXXXXX", folder) < 0) {
        errno = ENOMEM;
        return -1;
    }
    fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0) unlink(name);
    free(name);
    return fd;
}

static cca_status bad_output(const cca_file_memory *m, const char *what, size_t n, int why,
                             cca_error *err) {
    return cca_fail(err, why == ENOMEM ? CCA_NO_MEMORY : CCA_BAD_OUTPUT,
                    "%s: cannot %s %zu bytes: %s", m->folder, what, n, strerror(why));
}

static cca_status make(cca_file_memory *m, cca_error *err) {
    m->fd = open_nameless(m->folder);
    if (m->fd < 0) return bad_output(m, "make a file of", m->size, errno, err);
    if (cca_resize_again(m->fd, (off_t)m->size) != 0) {
        return bad_output(m, "make a file of", m->size, errno, err);
    }
    void *data = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
    if (data == MAP_FAILED) return bad_output(m, "map a file of", m->size, errno, err);
    m->data = data;
    (void)madvise(data, m->size, MADV_RANDOM); /* what is read ahead would drive out what is used */
    return CCA_OK;
}

cca_status cca_file_memory_open(cca_file_memory *out, const char *folder, size_t size,
                                cca_error *err) {
    *out = (cca_file_memory){.size = size, .fd = -1, .folder = strdup(folder)};
    cca_status status = CCA_NO_MEMORY;
    if (out->folder) {
        status = make(out, err);
    } else {
        cca_fail(err, status, "%s: no memory for its name", folder);
    }
    if (!status) return CCA_OK;
    out->size = 0;
    cca_file_memory_close(out);
    return status;
}

cca_status cca_file_memory_take(cca_file_memory *m, size_t at, size_t n, cca_error *err) {
    int why = EINTR;
    while (n > 0 && why == EINTR) why = posix_fallocate(m->fd, (off_t)at, (off_t)n);
    return n == 0 || why == 0 ? CCA_OK : bad_output(m, "take the space of", n, why, err);
}

void cca_file_memory_give(cca_file_memory *m, size_t at, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), end = (at + n) / page * page;
    size_t begin = (at + page - 1) / page * page;
    if (begin >= end) return;
    (void)!cca_reserve_again(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin,
                             (off_t)(end - begin));
}

void cca_file_memory_close(cca_file_memory *m) {
    if (m->data) munmap(m->data, m->size);
    if (m->folder && m->fd >= 0) close(m->fd);
    free(m->folder);
    *m = (cca_file_memory){0};
}
