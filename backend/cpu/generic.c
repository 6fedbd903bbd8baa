/* Vectors of four floats: what every 64-bit machine has (SSE2, NEON). */
#define CCA_SIMD_WIDTH  4
#define CCA_SIMD_TOKENS 4
#include "backend/cpu/simd.h"

const cca_kernels cca_kernels_generic = {CCA_SIMD_KERNELS("generic"), CCA_SIMD_PRODUCTS};
