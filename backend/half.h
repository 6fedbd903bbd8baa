/* Floats of 16 bits, and bits of floats. A leaf.
 *
 *     uint16_t h = cca_f32_to_bf16(1.0f);      // to nearest, ties to even
 *     float f = cca_f16_to_f32(0x3c00);        // 1.0f */
#ifndef CCA_HALF_H
#define CCA_HALF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Kernels of a GPU call these, too. */
#ifdef __CUDACC__
#define CCA_HALF static inline __host__ __device__
#else
#define CCA_HALF static inline
#endif

CCA_HALF float cca_float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

CCA_HALF uint32_t cca_bits_of_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float cca_bf16_to_f32(uint16_t h) {
    return cca_float_of_bits((uint32_t)h << 16);
}

/* Adds half of the last kept bit, less one where that bit is 0 (ties to even); a NaN
 * keeps its sign and becomes quiet, since the sum could carry it to infinity. */
static inline uint16_t cca_f32_to_bf16(float f) {
    uint32_t bits = cca_bits_of_float(f);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* The exponent's bias grows by 112; infinities and NaN get the largest exponent. Subnormal halves
 * are whole numbers of 2^-24: as floats with that exponent they would be subnormal, too, which
 * processors multiply a hundred times slower, and scales of few bits are often that small. Free of
 * branches so that loops over it vectorise. */
CCA_HALF float cca_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t normal = (rest + (112u << 23)) | (rest >= 0x0f800000u ? 0x7f800000u : 0u);
    uint32_t subnormal = cca_bits_of_float((float)(int32_t)(h & 0x3ffu) * 0x1p-24f);
    return cca_float_of_bits((rest < 0x00800000u ? subnormal : normal) | sign);
}

/* Adding 2^(e - 10 + 23) to a value of exponent e leaves exactly the ten kept bits, rounded by
 * the adder itself (to nearest, ties to even); below 2^-14 the bits of a subnormal. */
static inline uint16_t cca_f32_to_f16(float f) {
    uint32_t bits = cca_bits_of_float(f);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more */
    if (magnitude < 0x38800000u) { /* below 2^-14: steps of 2^-24 */
        float shifted = cca_float_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (cca_bits_of_float(shifted) - 0x3f000000u));
    }
    uint32_t odd = (magnitude >> 13) & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

/* Whether none of n values is infinite or no number. Magnitudes are ordered as their bits, with
 * those above all others. */
static inline bool cca_all_finite(const float *x, int64_t n) {
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = cca_bits_of_float(x[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most < 0x7f800000u;
}

#endif
