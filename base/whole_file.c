#include "base/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_TEMPORARIES = 100 };

static cca_status no_name(const char *path, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its name", path);
}

static cca_status bad_output(const cca_whole_file *f, const char *what, cca_error *err) {
    return cca_fail(err, CCA_BAD_OUTPUT, "%s: cannot %s: %s", f->path, what, strerror(errno));
}

cca_status cca_whole_open(cca_whole_file *f, const char *path, cca_error *err) {
    struct stat st;
    bool exists = stat(path, &st) == 0;
    *f = (cca_whole_file){.fd = -1};
    if (exists && S_ISDIR(st.st_mode)) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: is a folder", path);
    }
    if (exists && !S_ISREG(st.st_mode)) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: is not a regular file", path);
    }
    f->path = exists ? realpath(path, NULL) : strdup(path);
    return f->path ? CCA_OK : no_name(path, err);
}

/* A new file beside the output, so that a rename can put it into its place. */
static cca_status open_temporary(cca_whole_file *f, cca_error *err) {
    size_t size = strlen(f->path) + 64;
    f->temporary = malloc(size);
    if (!f->temporary) return no_name(f->path, err);
    mode_t mode = f->owner_only ? 0600 : 0666;
    for (int i = 0; i < MAX_TEMPORARIES && f->fd < 0; i++) {
        snprintf(f->temporary, size, "%s.%ld-%d.tmp", f->path, (long)getpid(), i);
        f->fd = open(f->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (f->fd < 0 && errno != EEXIST) break;
    }
    return f->fd < 0 ? bad_output(f, "create a temporary file beside it", err) : CCA_OK;
}

cca_status cca_whole_begin(cca_whole_file *f, uint64_t size, cca_error *err) {
    cca_status status = open_temporary(f, err);
    if (status) return status;
    if (fallocate(f->fd, 0, 0, (off_t)size) != 0 && (errno == ENOSPC || errno == EFBIG)) {
        return bad_output(f, "take the space", err);
    }
    return ftruncate(f->fd, (off_t)size) == 0 ? CCA_OK : bad_output(f, "set the size", err);
}

cca_status cca_whole_write(cca_whole_file *f, uint64_t offset, const void *data, size_t n,
                           cca_error *err) {
    const uint8_t *bytes = data;
    while (n > 0) {
        ssize_t written = pwrite(f->fd, bytes, n, (off_t)offset);
        if (written < 0 && errno == EINTR) continue;
        if (written == 0) errno = ENOSPC;
        if (written <= 0) return bad_output(f, "write", err);
        bytes += written;
        offset += (uint64_t)written;
        n -= (size_t)written;
    }
    return CCA_OK;
}

cca_status cca_whole_sync(cca_whole_file *f, cca_error *err) {
    return fsync(f->fd) == 0 ? CCA_OK : bad_output(f, "sync", err);
}

/* Makes the rename last through a crash. File systems that cannot do this are no failure. */
static void sync_folder(const cca_whole_file *f) {
    char *copy = strdup(f->path);
    if (!copy) return;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(copy);
}

cca_status cca_whole_commit(cca_whole_file *f, cca_error *err) {
    if (rename(f->temporary, f->path) != 0) {
        return bad_output(f, "give the finished file its name", err);
    }
    free(f->temporary);
    f->temporary = NULL;
    sync_folder(f);
    return CCA_OK;
}

void cca_whole_close(cca_whole_file *f) {
    if (f->path && f->fd >= 0) {
        if (f->temporary) unlink(f->temporary);
        close(f->fd);
    }
    free(f->temporary);
    free(f->path);
    *f = (cca_whole_file){.fd = -1};
}
