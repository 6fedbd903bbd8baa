/* Rows of weights of each type, as any bytes may be them: decoded, and multiplied by each variant
 * of the kernels, packed and as they lie. */
#include "fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/dtype.h"
#include "backend/half.h"

enum { MOST_ROWS = 33, MOST_X = 5, MOST_VALUES = 1024 };

typedef struct rows {
    cca_dtype type;
    int64_t n_x, n_w, n;
    size_t stride;
    char *w;  /* no byte more than they are, so that reading beyond them is found */
    float *x; /* -1, 0 and 1, which each form of x holds exactly */
} rows;

/* Three bytes say the type and the shape, the others are the weights; false where they are too few.
 */
static bool make_rows(rows *r, const uint8_t *data, size_t size) {
    static const cca_dtype types[] = {CCA_F32,  CCA_F16,  CCA_BF16, CCA_Q8_0,   CCA_Q4_0,
                                      CCA_Q4_1, CCA_Q5_0, CCA_Q5_1, CCA_Q2_K,   CCA_Q3_K,
                                      CCA_Q4_K, CCA_Q5_K, CCA_Q6_K, CCA_IQ4_NL, CCA_IQ4_XS};
    if (size < 3) return false;
    r->type = types[data[0] % (sizeof types / sizeof *types)];
    r->n_x = 1 + data[1] % MOST_X;
    r->n_w = 1 + data[2] % MOST_ROWS;
    const int64_t block = cca_dtype_block(r->type);
    size_t block_bytes;
    if (!cca_dtype_row_bytes(&block_bytes, r->type, block)) return false;
    r->n = (int64_t)((size - 3) / block_bytes / (size_t)r->n_w) * block;
    if (r->n > MOST_VALUES) r->n = MOST_VALUES;
    if (r->n == 0 || !cca_dtype_row_bytes(&r->stride, r->type, r->n)) return false;
    r->w = malloc(r->stride * (size_t)r->n_w);
    r->x = malloc(sizeof(float) * (size_t)(r->n_x * r->n));
    if (!r->w || !r->x) abort();
    memcpy(r->w, data + 3, r->stride * (size_t)r->n_w);
    for (int64_t i = 0; i < r->n_x * r->n; i++) r->x[i] = (float)(i * 7 % 3 - 1);
    return true;
}

static void *aligned(size_t size) {
    void *out = aligned_alloc(64, (size + 64) / 64 * 64);
    if (!out) abort();
    return out;
}

/* out (n_x, n_w) of one variant's products. */
static void multiply(float *out, const rows *r, const cca_products *k, bool packed) {
    const size_t form = k->x_bytes(r->type, r->n);
    const size_t stride = form ? form : sizeof(float) * (size_t)r->n;
    char *x = aligned(stride * (size_t)r->n_x);
    for (int64_t i = 0; i < r->n_x; i++) {
        const float *from = r->x + i * r->n;
        if (form) {
            k->x_convert(x + stride * (size_t)i, r->type, from, r->n);
        } else {
            memcpy(x + stride * (size_t)i, from, stride);
        }
    }
    for (int64_t i = 0; i < r->n_x * r->n_w; i++) out[i] = 0;
    if (packed) {
        char *panel = aligned(k->panel_bytes(r->type, r->n));
        for (int64_t j = 0; j < r->n_w; j += CCA_PANEL) {
            const int64_t some = r->n_w - j < CCA_PANEL ? r->n_w - j : CCA_PANEL;
            k->pack(panel, r->type, r->w + r->stride * (size_t)j, r->stride, some, r->n);
            k->multiply(out + j, r->n_w, x, stride, r->n_x, r->type, panel, some, r->n, true);
        }
        free(panel);
    } else {
        k->dot(out, r->n_w, x, stride, r->n_x, r->type, r->w, r->stride, r->n_w, r->n);
    }
    free(x);
}

/* Sums of the rows' absolute values; false where some value is no finite number, or so large that
 * sums are none. */
static bool magnitudes(float *out, const rows *r, const cca_kernels *k) {
    float *values = malloc(sizeof(float) * (size_t)r->n);
    bool finite = true;
    if (!values) abort();
    for (int64_t j = 0; j < r->n_w; j++) {
        double sum = 0;
        k->decode(values, r->type, r->w + r->stride * (size_t)j, r->n);
        for (int64_t i = 0; i < r->n; i++) sum += fabs((double)values[i]);
        finite &= sum < 1e30;
        out[j] = (float)sum;
    }
    free(values);
    return finite;
}

/* How far products may be off, as a share of the sum of magnitudes. Panels that round weights to
 * bf16 are off by up to 2^-8, those that round 32 of them to 8 bits of the largest one by up to an
 * eighth, where the others are half a step each. */
static float share_off(const cca_products *k, bool packed) {
    if (!packed || !k->rounds) return 1e-4F;
    return k->peak == CCA_PEAK_BF16 ? 0.005F : 0.125F;
}

/* Bytes of Q8_0 and Q4_0 are multiplied with an offset of half their range, which the sums lose
 * again: so they round by a share of what the scales, at the blocks' begin, allow. */
static float off_by_offset(const rows *r, int64_t j) {
    float sum = 0;
    size_t block_bytes;
    if (r->type != CCA_Q8_0 && r->type != CCA_Q4_0) return 0;
    (void)cca_dtype_row_bytes(&block_bytes, r->type, cca_dtype_block(r->type));
    for (size_t at = 0; at < r->stride; at += block_bytes) {
        uint16_t scale;
        memcpy(&scale, r->w + r->stride * (size_t)j + at, sizeof scale);
        sum += fabsf(cca_f16_to_f32(scale));
    }
    return 1e-3F * sum;
}

void fuzz_one(const uint8_t *data, size_t size) {
    rows r = {0};
    float want[MOST_X * MOST_ROWS], got[MOST_X * MOST_ROWS], sums[MOST_ROWS] = {0};
    if (!make_rows(&r, data, size)) return;
    bool finite = magnitudes(sums, &r, cca_kernels_at(0));
    multiply(want, &r, cca_kernels_at(0)->products(r.type), false);
    for (int i = 0; cca_kernels_at(i); i++) {
        const cca_kernels *k = cca_kernels_at(i);
        fuzz_check(magnitudes(got, &r, k) == finite, "a value that one variant alone finds finite");
        for (int packed = 0; packed < 2; packed++) {
            const cca_products *products = packed ? k->products(r.type) : k->few(r.type);
            multiply(got, &r, products, packed);
            for (int64_t j = 0; finite && j < r.n_x * r.n_w; j++) {
                const float most = share_off(products, packed) * sums[j % r.n_w] +
                                   off_by_offset(&r, j % r.n_w) + 1e-30F;
                fuzz_check(fabsf(got[j] - want[j]) <= most, "a product that variants differ on");
            }
        }
    }
    free(r.w), free(r.x);
}
