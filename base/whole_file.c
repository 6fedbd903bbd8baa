#include "base/whole_file.h"

#include "base/again.h"
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

cca_status cca_whole_check(const char *path, cca_error *err) {
    struct stat st;
    if (stat(path, &st) != 0) return CCA_OK;
    if (S_ISDIR(st.st_mode)) return cca_fail(err, CCA_BAD_OUTPUT, "%s: is a folder", path);
    if (!S_ISREG(st.st_mode)) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: is not a regular file", path);
    }
    if ((st.st_mode & 0222) == 0) errno = EACCES;
    if ((st.st_mode & 0222) == 0 || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: is read-only: %s", path, strerror(errno));
    }
    return CCA_OK;
}

cca_status cca_whole_open(cca_whole_file *f, const char *path, cca_error *err) {
    struct stat st;
    *f = (cca_whole_file){.fd = -1};
    cca_status status = cca_whole_check(path, err);
    if (status) return status;
    if (stat(path, &st) != 0 && errno == ELOOP) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: cannot follow: %s", path, strerror(errno));
    }
    f->path = behind_links(path);
    return f->path ? CCA_OK : no_name(path, err);
}

bool cca_whole_remove_leftover(const char *temporary) {
    struct stat st;
    int fd = cca_open_again(temporary, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
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
        int fd = cca_open_again(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
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
    int fd = cca_open_again(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    bool locked = fd >= 0 && cca_lock(fd, F_WRLCK, 0) == CCA_LOCK_BUSY;
    if (fd >= 0) close(fd);
    return locked;
}

/* Group first: whoever gives a file away can no longer change it. What may not be kept is given
 * up, and permissions that were a group's then go to no other one. */
static bool take_after(int fd, const struct stat *old) {
    struct stat own;
    mode_t mode = old->st_mode & 0777;
    if (fstat(fd, &own) != 0) return false;
    bool same_group = own.st_gid == old->st_gid || fchown(fd, (uid_t)-1, old->st_gid) == 0;
    if (own.st_uid != old->st_uid) (void)!fchown(fd, old->st_uid, (gid_t)-1);
    return fchmod(fd, same_group ? mode : mode & 0707) == 0;
}

/* Several that made one file at once, and were killed, left several. */
static void remove_leftovers_behind(const cca_whole_file *f, int own) {
    char name[PATH_MAX];
    for (int i = own + 1; i < MAX_TEMPORARIES; i++) {
        int size = snprintf(name, sizeof name, "%s.%d.tmp", f->path, i);
        if (size >= (int)sizeof name || access(name, F_OK) != 0) return;
        (void)cca_whole_remove_leftover(name);
    }
}

/* A new file beside the output, so that a rename can put it into its place. */
static cca_status open_temporary(cca_whole_file *f, cca_error *err) {
    size_t size = strlen(f->path) + 32;
    struct stat old;
    bool replaces = stat(f->path, &old) == 0;
    f->temporary = malloc(size);
    if (!f->temporary) return no_name(f->path, err);
    mode_t mode = f->owner_only || replaces ? 0600 : 0666;
    for (int i = 0; i < MAX_TEMPORARIES && f->fd < 0; i++) {
        snprintf(f->temporary, size, "%s.%d.tmp", f->path, i);
        f->fd = create_locked(f->temporary, mode);
        if (f->fd >= 0) remove_leftovers_behind(f, i);
        if (f->fd < 0 && errno != EEXIST) break;
        if (f->fd < 0 && f->alone && is_locked(f->temporary)) {
            return cca_fail(err, CCA_RUNTIME, "%s: another process is writing this file", f->path);
        }
        if (f->fd < 0 && f->alone && access(f->temporary, F_OK) != 0) i--; /* gone by now */
    }
    if (f->fd < 0) return bad_output(f, "create a temporary file beside it", err);
    bool kept = !replaces || take_after(f->fd, &old);
    return kept ? CCA_OK : bad_output(f, "keep its permissions", err);
}

cca_status cca_whole_begin(cca_whole_file *f, uint64_t size, cca_error *err) {
    cca_status status = cca_whole_check(f->path, err);
    if (!status) status = open_temporary(f, err);
    if (status) return status;
    if (cca_reserve_again(f->fd, 0, 0, (off_t)size) != 0 && (errno == ENOSPC || errno == EFBIG)) {
        return bad_output(f, "take the space", err);
    }
    return cca_resize_again(f->fd, (off_t)size) == 0 ? CCA_OK : bad_output(f, "set the size", err);
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
    return cca_sync_again(f->fd) == 0 ? CCA_OK : bad_output(f, "sync", err);
}

void cca_whole_sync_name(const char *path) {
    char *copy = strdup(path);
    if (!copy) return;
    int fd = cca_open_again(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd >= 0) {
        (void)cca_sync_again(fd);
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
    cca_whole_sync_name(f->path);
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

/* ---- leaving at once ---- */

/* Puts a number behind a text that has room for it; printf is not for signal handlers. */
static void put_number(char *text, unsigned long n) {
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = '\0';
    do {
        digits[--at] = (char)('0' + n % 10);
    } while ((n /= 10) > 0);
    memcpy(text + strlen(text), digits + at, sizeof digits - at);
}

/* Whether a name is one that open_temporary gives. */
static bool is_temporary(const char *name, size_t size) {
    enum { END = 4 };
    if (size < END || strcmp(name + size - END, ".tmp") != 0) return false;
    size_t at = size - END, end = at;
    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9') at--;
    return at > 0 && at < end && name[at - 1] == '.';
}

/* The files that are open are asked for their names. */
void cca_whole_abandon(void) {
    enum { MOST_FILES = 1024 };
    for (unsigned long fd = 0; fd < MOST_FILES; fd++) {
        char link[48] = "/proc/self/fd/", name[4096];
        put_number(link, fd);
        ssize_t size = readlink(link, name, sizeof name - 1);
        if (size <= 0) continue;
        name[size] = '\0';
        bool written = (fcntl((int)fd, F_GETFL) & O_ACCMODE) == O_RDWR;
        if (written && is_temporary(name, (size_t)size)) unlink(name);
    }
}
