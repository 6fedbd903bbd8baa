#include "base/whole_file.h"

#include "base/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
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

/* The file that path names behind symbolic links, also where there is none yet; NULL without
 * memory. A ring of links stays one, which nothing can be opened through. */
static char *behind_links(const char *path) {
    enum { MAX_LINKS = 40 };
    char *place = strdup(path);
    for (int i = 0; place && i < MAX_LINKS; i++) {
        char target[PATH_MAX], *next;
        ssize_t n = readlink(place, target, sizeof target);
        if (n < 0 || n == sizeof target) break;
        const char *slash = target[0] == '/' ? NULL : strrchr(place, '/');
        int folder = slash ? (int)(slash + 1 - place) : 0;
        if (asprintf(&next, "%.*s%.*s", folder, place, (int)n, target) < 0) next = NULL;
        free(place);
        place = next;
    }
    return place;
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
    if (!exists && errno == ELOOP) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: cannot follow: %s", path, strerror(errno));
    }
    f->path = behind_links(path);
    return f->path ? CCA_OK : no_name(path, err);
}

bool cca_whole_remove_leftover(const char *temporary) {
    struct stat st;
    int fd = open(temporary, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return errno == ENOENT;
    bool gone = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                cca_lock(fd, F_WRLCK, 0) == CCA_LOCK_DONE && cca_still_named(fd, temporary) &&
                unlink(temporary) == 0;
    close(fd);
    return gone;
}

/* A new file of that name, locked; -1 with EEXIST where it is somebody else's. A lock makes sure
 * that nobody has taken the new file for a leftover. */
static int create_locked(const char *name, mode_t mode) {
    for (int tries = 0; tries < MAX_TEMPORARIES; tries++) {
        int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno != EEXIST) return -1;
        if (fd < 0 && !cca_whole_remove_leftover(name)) break;
        if (fd < 0) continue;
        if (cca_lock(fd, F_WRLCK, 0) != CCA_LOCK_BUSY && cca_still_named(fd, name)) return fd;
        close(fd);
    }
    errno = EEXIST;
    return -1;
}

/* Whether somebody holds the lock of a file. */
static bool is_locked(const char *name) {
    int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool locked = fd >= 0 && cca_lock(fd, F_WRLCK, 0) == CCA_LOCK_BUSY;
    if (fd >= 0) close(fd);
    return locked;
}

/* A new file beside the output, so that a rename can put it into its place. */
static cca_status open_temporary(cca_whole_file *f, cca_error *err) {
    size_t size = strlen(f->path) + 32;
    f->temporary = malloc(size);
    if (!f->temporary) return no_name(f->path, err);
    mode_t mode = f->owner_only ? 0600 : 0666;
    for (int i = 0; i < MAX_TEMPORARIES && f->fd < 0; i++) {
        snprintf(f->temporary, size, "%s.%d.tmp", f->path, i);
        f->fd = create_locked(f->temporary, mode);
        if (f->fd < 0 && errno != EEXIST) break;
        if (f->fd < 0 && f->alone && is_locked(f->temporary)) {
            return cca_fail(err, CCA_RUNTIME, "%s: another process is writing this file", f->path);
        }
        if (f->fd < 0 && f->alone && access(f->temporary, F_OK) != 0) i--; /* gone by now */
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
