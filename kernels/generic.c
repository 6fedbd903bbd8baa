/* Vectors of four floats: what every 64-bit machine has (SSE2, NEON). */
#define CCA_SIMD_WIDTH  4
#define CCA_SIMD_TOKENS 4
#define CCA_SIMD_TABLE  cca_kernels_generic
#define CCA_SIMD_NAME   "generic"
#include "kernels/simd.h"
