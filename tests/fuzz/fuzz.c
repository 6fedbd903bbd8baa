#include "fuzz.h"

#include "cli/text.h"

#include <sanitizer/allocator_interface.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static atomic_llong live, limit = INT64_MAX;

static void on_malloc(const volatile void *address, size_t size) {
    (void)address;
    if (atomic_fetch_add(&live, (long long)size) + (long long)size <= atomic_load(&limit)) return;
    atomic_store(&limit, INT64_MAX);
    fuzz_check(false, "more memory than ten times the input plus 64 MB");
}

static void on_free(const volatile void *address) {
    if (address)
        atomic_fetch_sub(&live, (long long)__sanitizer_get_allocated_size((const void *)address));
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    atomic_store(&limit, atomic_load(&live) + 10 * (long long)size + (64LL << 20));
    fuzz_one(data, size);
    atomic_store(&limit, INT64_MAX);
    return 0;
}

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
    return utf8_valid((const char *)data, size);
}

void fuzz_check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}
