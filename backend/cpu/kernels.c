#include "backend/cpu/kernels.h"

#ifdef __x86_64__
#include "backend/cpu/amx.h"

static const cca_kernels *avx2(void) {
    bool runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return runs ? &cca_kernels_avx2 : NULL;
}

/* F16C, too, which has come with AVX-512 from the start; clang 14 cannot ask for it. */
static const cca_kernels *avx512(void) {
    bool runs = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
    return avx2() && runs ? &cca_kernels_avx512 : NULL;
}

static const cca_kernels *amx(void) {
    return avx512() && cca_amx_runs() ? &cca_kernels_amx : NULL;
}
#else
static const cca_kernels *avx2(void) {
    return NULL;
}

static const cca_kernels *avx512(void) {
    return NULL;
}

static const cca_kernels *amx(void) {
    return NULL;
}
#endif

/* From the slowest to the fastest; each machine runs those up to some point. */
const cca_kernels *cca_kernels_at(int index) {
    switch (index) {
    case 0: return &cca_kernels_plain;
    case 1: return &cca_kernels_generic;
    case 2: return avx2();
    case 3: return avx512();
    case 4: return amx();
    default: return NULL;
    }
}

const char *cca_kernels_name(int index) {
    static const char *const names[] = {"plain", "generic",
#ifdef __x86_64__
                                        "avx2",  "avx512",  "amx",
#endif
                                        NULL};
    return names[index];
}

const cca_kernels *cca_kernels_find(const char *name) {
    for (int i = 0; cca_kernels_at(i); i++) {
        if (strcmp(cca_kernels_at(i)->name, name) == 0) return cca_kernels_at(i);
    }
    return NULL;
}

const cca_kernels *cca_kernels_best(void) {
    int last = 0;
    while (cca_kernels_at(last + 1)) last++;
    return cca_kernels_at(last);
}
