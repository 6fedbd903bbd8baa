#include "backend/cpu/avx512.h"

static void attend(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                   int64_t n, float *scratch) {
    attend_by(args, head, n_heads, row, n, scratch, bf16_add_packed);
}

const cca_kernels cca_kernels_avx512 = {
    CCA_SIMD_KERNELS("avx512"), .products = products, .few = few,
    .attend = attend,           .spin = avx512_spin,
};
