/* Values that blocks hand to each other within a kernel, without fences: each lies beside a seal,
 * the number of the step it was made in, in eight bytes that are written and read as one. Who reads
 * looks again until the seal is right.
 *
 *     sealed_put(to, value, seal);
 *     while (!sealed_get(&value, from, seal)) continue; */
#ifndef CCA_CUDA_SEALED_CUH
#define CCA_CUDA_SEALED_CUH

#include "backend/cuda/device.cuh"

static __device__ __forceinline__ void sealed_put(uint64_t *to, uint32_t value, unsigned seal) {
    uint64_t both = (uint64_t)seal << 32 | value;
    asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"(both) : "memory");
}

static __device__ __forceinline__ void sealed_put(uint64_t *to, float value, unsigned seal) {
    sealed_put(to, __float_as_uint(value), seal);
}

/* False where the seal is another. */
static __device__ __forceinline__ bool sealed_get(uint32_t *value, const uint64_t *from,
                                                  unsigned seal) {
    uint64_t both;
    asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(both) : "l"(from) : "memory");
    *value = (uint32_t)both;
    return (unsigned)(both >> 32) == seal;
}

static __device__ __forceinline__ bool sealed_get(float *value, const uint64_t *from,
                                                  unsigned seal) {
    return sealed_get((uint32_t *)value, from, seal);
}

#endif
