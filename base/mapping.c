#include "base/mapping.h"

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
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cca_fail(err, CCA_BAD_MODEL, "%s: cannot open: %s", path, strerror(errno));
    cca_status status = map(out, fd, path, err);
    close(fd);
    return status;
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
