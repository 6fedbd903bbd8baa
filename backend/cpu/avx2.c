/* Vectors of eight floats with fused multiply-add. */
#define CCA_SIMD_WIDTH  8
#define CCA_SIMD_TOKENS 6
#include "backend/cpu/simd.h"

const cca_kernels cca_kernels_avx2 = {CCA_SIMD_KERNELS("avx2"), CCA_SIMD_PRODUCTS};
