/* Blocks that share what they have in shared memory, on compute capability 9.0 and newer; elsewhere
 * each is alone.
 *
 *     for (int to = 0; to < n_blocks; to++) cluster_put(&shared[i], to, value);
 *     cluster_wait();                   // for all, and what they have put */
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

/* For all threads of the cluster, and what they have put. */
static __device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
#endif
}

#endif
