/* Products of 16 × 8 × 16 halves by the tensor cores of compute capability 8.0 and newer, and the
 * ways to shared memory and out of it that go with them.
 *
 *     mma_copy16(to, from, true);       // 16 bytes on their way; from: global memory
 *     mma_copy_commit();
 *     mma_copy_wait<0>();
 *     __syncthreads();
 *     uint32_t a[4], b[4];
 *     mma_load(b, at);                  // four matrices of 8 × 8; at: of each lane's row
 *     mma_multiply<true>(d, a, b[0], b[1]); */
#ifndef CCA_CUDA_MMA_CUH
#define CCA_CUDA_MMA_CUH

#include "backend/cuda/device.cuh"

/* 16 bytes to shared memory; zeros where there is nothing to read. */
static __device__ __forceinline__ void mma_copy16(uint32_t to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

static __device__ __forceinline__ void mma_copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most so many groups of copies are under way. */
template <int PENDING> static __device__ __forceinline__ void mma_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

static __device__ __forceinline__ void mma_load(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

static __device__ __forceinline__ void mma_load_transposed(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* d += a · b. */
template <bool is_bf16>
static __device__ __forceinline__ void mma_multiply(float d[4], const uint32_t a[4], uint32_t b0,
                                                    uint32_t b1) {
    if (is_bf16) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

#endif
