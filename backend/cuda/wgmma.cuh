/* Products of Hopper's warpgroups (wgmma; sm_90a only): 64 rows, their values in registers, times
 * what lies in shared memory as tensor_map.cuh copies it; sums in f32.
 *
 *     wgmma_begin();
 *     wgmma_multiply<8, true, 0>(sums, a, wgmma_operand(at, 16), 0);    // 64 × 64, 16 deep
 *     wgmma_commit();
 *     wgmma_wait<0>();
 *     wgmma_settle<8>(sums);            // before they are used
 *
 * Sums lie as mma.sync leaves them: a warp has 16 rows, a lane columns lane % 4 * 2 and the next of
 * each eight, of rows lane / 4 and lane / 4 + 8. */
#ifndef CCA_CUDA_WGMMA_CUH
#define CCA_CUDA_WGMMA_CUH

#include "backend/cuda/device.cuh"

/* A right operand in shared memory, rows of 128 bytes swizzled in groups of eight. stride: bytes
 * from one panel to the next, where the operand spans several across. */
static __device__ __forceinline__ uint64_t wgmma_operand(uint32_t address, uint32_t stride) {
    const uint64_t eight_rows = 1024, swizzle_128 = 1ull << 62;
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(stride >> 4) << 16 |
           (eight_rows >> 4) << 32 | swizzle_128;
}

static __device__ __forceinline__ void wgmma_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Keeps the compiler from moving accumulators over a wait. */
template <int N> static __device__ __forceinline__ void wgmma_settle(float d[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+f"(d[n][i])::"memory");
    }
}

#define D4(i)  "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define D16(i) D4(i), D4(i + 1), D4(i + 2), D4(i + 3)
#define R32                                                                                        \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"       \
    "%24,%25,%26,%27,%28,%29,%30,%31"
#define R64                                                                                        \
    R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,"    \
        "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define A4 "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])

/* d (64 × 128) = a · b, or is added to; transposed: b's rows lie along the sum. */
#define PRODUCT_128(type)                                                                          \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;\n"                                         \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" R64 "}, "       \
                 "{%64, %65, %66, %67}, %68, p, 1, 1, %70;}"                                       \
                 : D16(0), D16(4), D16(8), D16(12)                                                 \
                 : A4, "l"(b), "r"(add), "n"(TRANSPOSED))

/* The same, 64 × 64. */
#define PRODUCT_64(type)                                                                           \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0;\n"                                         \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" R32 "}, "        \
                 "{%32, %33, %34, %35}, %36, p, 1, 1, %38;}"                                       \
                 : D16(0), D16(4)                                                                  \
                 : A4, "l"(b), "r"(add), "n"(TRANSPOSED))

template <int N, bool is_bf16, int TRANSPOSED>
static __device__ __forceinline__ void wgmma_multiply(float d[N][4], const uint32_t a[4],
                                                      uint64_t b, int add) {
    if constexpr (N == 16 && is_bf16) PRODUCT_128("bf16");
    if constexpr (N == 16 && !is_bf16) PRODUCT_128("f16");
    if constexpr (N == 8 && is_bf16) PRODUCT_64("bf16");
    if constexpr (N == 8 && !is_bf16) PRODUCT_64("f16");
}

#endif
