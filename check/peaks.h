/* What this machine's processors can do at most: the yardstick of speed.
 *
 *     cca_peaks peaks;
 *     cca_peaks_measure(&peaks, 2, (size_t)256 << 20, cca_seconds, &err);
 *     printf("%.0f GFLOP/s\n", peaks.f32 / 1e9);
 *
 * Each arithmetic peak comes from a loop over registers of the instruction that the products of a
 * type use: f32 fused multiply-add, bf16 dot products, byte dot products. A multiplication and an
 * addition count as two operations. read is the rate of reading so many bytes over and over: those
 * of a small model come from the caches, and no yardstick of memory is one of theirs. */
#ifndef CCA_PEAKS_H
#define CCA_PEAKS_H

#include "base/base.h"

/* Operations and bytes a second, all threads together; 0 where there is no such instruction. */
typedef struct cca_peaks {
    double f32, bf16, bytes;
    double read;
} cca_peaks;

/* n_threads ≥ 1; by a clock of base/clock.h. Takes about a second and as much memory as there is to
 * read, 4 to 256 MB. CCA_NO_MEMORY. */
cca_status cca_peaks_measure(cca_peaks *out, int n_threads, size_t read_bytes,
                             double (*seconds)(void), cca_error *err);

/* That of products with weights of a type, by its name ("q8_0"). */
double cca_peaks_of_products(const cca_peaks *p, const char *weight_type);

#endif
