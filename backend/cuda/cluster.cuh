/* Blocks that share what they have in shared memory, on compute capability 9.0 and newer; elsewhere
 * each is alone.
 *
 *     for (int to = 0; to < n_blocks; to++) cluster_put(&shared[i], to, value);
 *     cluster_wait(n_blocks);           // for all, and what they have put */
#ifndef CCA_CUDA_CLUSTER_CUH
#define CCA_CUDA_CLUSTER_CUH

#include "backend/cuda/device.cuh"

/* Writes to where `to` points to in another block's shared memory. */
static __device__ __forceinline__ void cluster_put(uint32_t *to, int block, uint32_t value) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n"
                 ".reg .u32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "st.shared::cluster.u32 [there], %2;\n"
                 "}" ::"r"(cuda_shared(to)),
                 "r"(block), "r"(value)
                 : "memory");
#else
    (void)block;
    *to = value;
#endif
}

/* All threads of n blocks; of one: of the block. */
static __device__ __forceinline__ void cluster_wait(int n) {
#if __CUDA_ARCH__ >= 900
    if (n > 1) {
        asm volatile("barrier.cluster.arrive.release.aligned;\n"
                     "barrier.cluster.wait.acquire.aligned;" ::
                         : "memory");
        return;
    }
#endif
    (void)n;
    __syncthreads();
}

#endif
