#include "fuzz.h"

#include "base/utf8.h"

#include <fcntl.h>
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

/* ---- a folder ----------------------------------------------------------------------------- */

enum { MOST_FILES = 8 };

static char folder[64];
static struct {
    char path[128];
    uint8_t *bytes; /* as they are there */
    size_t size;
} files[MOST_FILES];

static void remove_folder(void) {
    for (int i = 0; i < MOST_FILES; i++) {
        if (files[i].size > 0) unlink(files[i].path);
        free(files[i].bytes);
    }
    rmdir(folder);
}

static void make_folder(const char *const *names, size_t n) {
    snprintf(folder, sizeof folder, "%s/fuzz_XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    fuzz_check(n <= MOST_FILES && mkdtemp(folder), "no folder");
    for (size_t i = 0; i < n; i++) {
        snprintf(files[i].path, sizeof files[i].path, "%s/%s", folder, names[i]);
    }
    atexit(remove_folder);
}

/* Most inputs change one of the files. */
static void put(size_t i, const uint8_t *bytes, size_t size) {
    if (size == files[i].size && (size == 0 || memcmp(bytes, files[i].bytes, size) == 0)) return;
    if (size == 0) {
        unlink(files[i].path);
    } else {
        int fd = open(files[i].path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        free(files[i].bytes);
        files[i].bytes = malloc(size);
        fuzz_check(fd >= 0 && write(fd, bytes, size) == (ssize_t)size && files[i].bytes, "no file");
        close(fd);
        memcpy(files[i].bytes, bytes, size);
    }
    files[i].size = size;
}

const char *fuzz_folder(const char *const *names, size_t n, const uint8_t *data, size_t size) {
    if (!folder[0]) make_folder(names, n);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *part = data;
        size_t part_size = size;
        if (i < n - 1 && !fuzz_part(&part, &part_size, &data, &size)) part_size = 0;
        put(i, part, part_size);
    }
    return folder;
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
