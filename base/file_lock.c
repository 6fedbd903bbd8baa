#include "base/file_lock.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

cca_lock_result cca_lock(int fd, short type, off_t byte) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &l) == 0) return CCA_LOCK_DONE;
    return errno == EAGAIN || errno == EACCES ? CCA_LOCK_BUSY : CCA_LOCK_UNKNOWN;
}

bool cca_still_named(int fd, const char *path) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}
