/* What libFuzzer calls: counts what an input allocates while it is tried, where there is
 * AddressSanitizer to tell of it. */
#include "fuzz.h"

#include <sanitizer/allocator_interface.h>
#include <stdatomic.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#pragma weak __sanitizer_install_malloc_and_free_hooks
#pragma weak __sanitizer_get_allocated_size

static atomic_llong live, limit = INT64_MAX;

static void on_malloc(const volatile void *address, size_t size) {
    (void)address;
    if (atomic_fetch_add(&live, (long long)size) + (long long)size <= atomic_load(&limit)) return;
    atomic_store(&limit, INT64_MAX);
    fuzz_check(false, "more memory than ten times the input plus 64 MB");
}

static void on_free(const volatile void *address) {
    if (address) {
        atomic_fetch_sub(&live, (long long)__sanitizer_get_allocated_size((const void *)address));
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    if (__sanitizer_install_malloc_and_free_hooks) {
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    atomic_store(&limit, atomic_load(&live) + (long long)fuzz_memory(size));
    fuzz_one(data, size);
    atomic_store(&limit, INT64_MAX);
    return 0;
}
