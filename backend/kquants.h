/* Number types of GGUF that export reads and nothing else: llama.cpp's older types of 32 values
 * a block and its K-quants of 256.
 *
 *     size_t bytes;
 *     if (cca_kquant_known(tensor->type) && cca_kquant_row_bytes(&bytes, tensor->type, 4096))
 *         cca_kquant_decode(row, tensor->type, tensor->data, 4096);
 *
 * The bits of each are described in kquants.c. */
#ifndef CCA_KQUANTS_H
#define CCA_KQUANTS_H

#include "base/base.h"

/* With GGUF's ids. */
typedef enum cca_kquant {
    CCA_Q4_1 = 3,
    CCA_Q5_0 = 6,
    CCA_Q5_1 = 7,
    CCA_Q2_K = 10,
    CCA_Q3_K = 11,
    CCA_Q4_K = 12,
    CCA_Q5_K = 13,
    CCA_Q6_K = 14,
} cca_kquant;

/* True for the types above. The functions below expect one of them. */
bool cca_kquant_known(uint32_t id);

/* Number of values in a block: 32 or 256. */
int64_t cca_kquant_block(uint32_t id);

/* Bytes of a row of n values; false if n < 0, no multiple of the block, or too large. */
bool cca_kquant_row_bytes(size_t *out, uint32_t id, int64_t n);

/* n values to float; n is a multiple of the block, in is aligned to two bytes. */
void cca_kquant_decode(float *out, uint32_t id, const void *in, int64_t n);

#endif
