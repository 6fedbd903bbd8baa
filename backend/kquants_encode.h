/* Encoders of the types of kquants.h that export makes. Scales and minima are sought: those that
 * leave the least error, weighted by the values' own size, once they are rounded themselves.
 *
 *     cca_q4_k row[4096 / CCA_LARGE_BLOCK];
 *     cca_encode_q4_k(row, x, 4096);
 *
 * That takes some hundred operations a value: for weights, which are encoded once. n is a multiple
 * of the block. A block with a value that is no finite number, or one of a magnitude from the
 * type's limit on, becomes one of no numbers. */
#ifndef CCA_KQUANTS_ENCODE_H
#define CCA_KQUANTS_ENCODE_H

#include <stdint.h>

void cca_encode_q5_0(void *out, const float *in, int64_t n);
void cca_encode_q5_1(void *out, const float *in, int64_t n);
void cca_encode_q4_k(void *out, const float *in, int64_t n);
void cca_encode_q5_k(void *out, const float *in, int64_t n);
void cca_encode_q6_k(void *out, const float *in, int64_t n);

/* Blocks of another type with the same values q, n of them, for who multiplies blocks of 32 that
 * have f16 numbers alone. Scales and minima of q4_k, q5_k and iq4_xs, products of two numbers, are
 * rounded to f16: by 2^-11 at most. The others stay what they are. */
void cca_q8_0_of_q5_0(void *out, const void *in, int64_t n);
void cca_q8_0_of_iq4_nl(void *out, const void *in, int64_t n);
void cca_q8_0_of_iq4_xs(void *out, const void *in, int64_t n);
void cca_q4_1_of_q4_k(void *out, const void *in, int64_t n);
void cca_q5_1_of_q5_k(void *out, const void *in, int64_t n);

/* From here on a value cannot be encoded. */
#define CCA_Q5_0_LIMIT (65520.0f * 16)
#define CCA_Q5_1_LIMIT 65504.0f
#define CCA_K_LIMIT    (65520.0f * 63) /* of Q4_K and Q5_K */
#define CCA_Q6_K_LIMIT (65520.0f * 128 * 32)

#endif
