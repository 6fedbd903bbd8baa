/* Calls on files that a signal may end before they have done anything: made again until one is not.
 *
 *     int fd = cca_open_again(path, O_RDONLY | O_CLOEXEC, 0);
 *     if (cca_sync_again(fd) != 0) ...
 *
 * As the calls that they are named after, which may be EINTR on some file systems. For files alone:
 * to open a pipe waits for its other end, and there a signal is to be heard. */
#ifndef CCA_AGAIN_H
#define CCA_AGAIN_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static inline int cca_open_again(const char *path, int flags, mode_t mode) {
    int fd;
    do {
        fd = open(path, flags, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static inline int cca_sync_again(int fd) {
    int result;
    do {
        result = fsync(fd);
    } while (result != 0 && errno == EINTR);
    return result;
}

static inline int cca_sync_data_again(int fd) {
    int result;
    do {
        result = fdatasync(fd);
    } while (result != 0 && errno == EINTR);
    return result;
}

static inline int cca_resize_again(int fd, off_t size) {
    int result;
    do {
        result = ftruncate(fd, size);
    } while (result != 0 && errno == EINTR);
    return result;
}

/* mode: of fallocate, which glibc has for Linux alone. */
static inline int cca_reserve_again(int fd, int mode, off_t at, off_t size) {
    int result;
    do {
        result = fallocate(fd, mode, at, size);
    } while (result != 0 && errno == EINTR);
    return result;
}

#endif
