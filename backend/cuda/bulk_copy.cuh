/* Barriers in shared memory that copies arrive at, and the bulk copies of Hopper and newer.
 *
 *     __shared__ uint64_t full;
 *     if (threadIdx.x == 0) { cuda_barrier_init(&full, 1); cuda_barriers_ready(); }
 *     __syncthreads();
 *     if (threadIdx.x == 0) { cuda_barrier_expect(&full, 2048); cuda_bulk_copy(to, from, 2048,
 * &full); } cuda_barrier_wait(&full, 0);          // the first phase is 0, the next 1, then 0 again
 *
 * Addresses and sizes of copies are multiples of 16 bytes. */
#ifndef CCA_CUDA_BULK_COPY_CUH
#define CCA_CUDA_BULK_COPY_CUH

#include "backend/cuda/device.cuh"

static __device__ __forceinline__ void cuda_barrier_init(uint64_t *b, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(cuda_shared(b)), "r"(arrivals)
                 : "memory");
}

/* Lets the copy engine see barriers that this thread has made. */
static __device__ __forceinline__ void cuda_barriers_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void cuda_barrier_arrive(uint64_t *b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(cuda_shared(b)) : "memory");
}

/* Arrives, and lets the phase last until so many bytes have come. */
static __device__ __forceinline__ void cuda_barrier_expect(uint64_t *b, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(cuda_shared(b)),
                 "r"(bytes)
                 : "memory");
}

/* Waits for the end of a phase. */
static __device__ __forceinline__ void cuda_barrier_wait(uint64_t *b, int phase) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}" ::"r"(cuda_shared(b)),
                 "r"(phase)
                 : "memory");
}

/* Whether a phase has ended. */
static __device__ __forceinline__ bool cuda_barrier_test(uint64_t *b, int phase) {
    unsigned done;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(done)
                 : "r"(cuda_shared(b)), "r"(phase)
                 : "memory");
    return done != 0;
}

static __device__ __forceinline__ void cuda_bulk_copy(void *to, const void *from, int bytes,
                                                      uint64_t *full) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(cuda_shared(to)),
                 "l"(from), "r"(bytes), "r"(cuda_shared(full))
                 : "memory");
}

#endif
