#include "fuzz.h"

#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *fuzz_file(const uint8_t *data, size_t size) {
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("input", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    fuzz_check(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size,
               "no file in memory");
    return path;
}

bool fuzz_part(const uint8_t **part, size_t *part_size, const uint8_t **data, size_t *size) {
    static const char mark[] = "\n%%\n";
    enum { MARK_SIZE = sizeof mark - 1 };
    if (*size == 0) return false;
    const uint8_t *end = memmem(*data, *size, mark, MARK_SIZE);
    size_t used = end ? (size_t)(end - *data) + MARK_SIZE : *size;
    *part = *data;
    *part_size = end ? used - MARK_SIZE : used;
    *data += used;
    *size -= used;
    return true;
}

size_t fuzz_utf8(const uint8_t *data, size_t size) {
    return cca_utf8_valid((const char *)data, size);
}

size_t fuzz_memory(size_t size) {
    return 10 * size + ((size_t)64 << 20);
}

void fuzz_check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}
