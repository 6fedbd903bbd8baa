/* Decoders of the types that only export reads: llama.cpp's older types of 32 values a block and
 * its K-quants of 256. They are rows of the table in dtype.c:
 *
 *     cca_dtype_decode(row, CCA_Q4_K, tensor->data, 4096);
 *
 * Each: n values to float; n is a multiple of the block, in is aligned to two bytes. The bits of
 * each are described in kquants.c. */
#ifndef CCA_KQUANTS_H
#define CCA_KQUANTS_H

#include <stdint.h>

void cca_decode_q4_1(float *out, const void *in, int64_t n);
void cca_decode_q5_0(float *out, const void *in, int64_t n);
void cca_decode_q5_1(float *out, const void *in, int64_t n);
void cca_decode_q2_k(float *out, const void *in, int64_t n);
void cca_decode_q3_k(float *out, const void *in, int64_t n);
void cca_decode_q4_k(float *out, const void *in, int64_t n);
void cca_decode_q5_k(float *out, const void *in, int64_t n);
void cca_decode_q6_k(float *out, const void *in, int64_t n);

#endif
