#include "kernels/kernels.h"

#ifdef __x86_64__
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static const cca_kernels *const avx2 = &cca_kernels_avx2;
#else
static bool has_avx2(void) {
    return false;
}
static const cca_kernels *const avx2 = NULL;
#endif

const cca_kernels *cca_kernels_at(int index) {
    switch (index) {
    case 0: return &cca_kernels_plain;
    case 1: return &cca_kernels_generic;
    case 2: return has_avx2() ? avx2 : NULL;
    default: return NULL;
    }
}

const cca_kernels *cca_kernels_find(const char *name) {
    for (int i = 0; cca_kernels_at(i); i++) {
        if (strcmp(cca_kernels_at(i)->name, name) == 0) return cca_kernels_at(i);
    }
    return NULL;
}

const cca_kernels *cca_kernels_best(void) {
    return has_avx2() ? avx2 : &cca_kernels_generic;
}
