/* Vectors of eight floats with fused multiply-add. */
#define CCA_SIMD_WIDTH  8
#define CCA_SIMD_TOKENS 6
#define CCA_SIMD_TABLE  cca_kernels_avx2
#define CCA_SIMD_NAME   "avx2"
#include "kernels/simd.h"
