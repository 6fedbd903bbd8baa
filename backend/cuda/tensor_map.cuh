/* Copies of rows of a cache by Hopper's copy engine (TMA), swizzled as wgmma wants them: in panels
 * of 64 values of 16 bits, 128 bytes a row.
 *
 *     tensor_map_encoder encode = tensor_map_find_encoder();          // host
 *     if (!encode || !tensor_map_make(encode, &map, rows.k, &rows, 16)) ...
 *     cuda_barrier_expect(&full, 16 * 128);                           // device
 *     tensor_copy(to, &map, panel, row, &full);                       // 16 rows from `row` on */
#ifndef CCA_CUDA_TENSOR_MAP_CUH
#define CCA_CUDA_TENSOR_MAP_CUH

#include "backend/cuda/bulk_copy.cuh"

#include <cudaTypedefs.h>

enum { TENSOR_PANEL = 64 }; /* values */

typedef PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder;

/* The driver's function comes through the runtime, so that the program starts without a driver. */
static inline tensor_map_encoder tensor_map_find_encoder() {
    void *found = NULL;
    cudaDriverEntryPointQueryResult result;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                         cudaEnableDefault, &result);
    bool good = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return good ? (tensor_map_encoder)found : NULL;
}

/* All rows of all heads as one matrix, of which some rows are copied at a time. */
static inline bool tensor_map_make(tensor_map_encoder encode, CUtensorMap *out, void *data,
                                   const cca_rows *rows, int64_t box_rows) {
    cuuint64_t sizes[] = {(cuuint64_t)rows->head_dim, (cuuint64_t)(rows->heads * rows->capacity)};
    cuuint64_t strides[] = {(cuuint64_t)rows->head_dim * 2};
    cuuint32_t box[] = {TENSOR_PANEL, (cuuint32_t)box_rows}, steps[] = {1, 1};
    CUtensorMapDataType type = rows->k_type == CCA_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                        : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    return encode(out, type, 2, data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Begins to copy a panel's rows, as many as the map says; row: among all rows of all heads. */
static __device__ __forceinline__ void tensor_copy(char *to, const CUtensorMap *map, int panel,
                                                   int row, uint64_t *full) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(cuda_shared(to)),
                 "l"(map), "r"(panel * TENSOR_PANEL), "r"(row), "r"(cuda_shared(full))
                 : "memory");
}

#endif
