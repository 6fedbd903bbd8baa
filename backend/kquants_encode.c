#include "backend/kquants_encode.h"

#include "backend/dtype.h"

#include <float.h>

/* Values that share a scale a and an offset c, x = a q + c, at integers q. */
typedef struct fit {
    float scale, offset;
    double error;
} fit;

/* Sums over a sub-block, each weighted: of 1, q, q², x, x q, x². */
typedef struct sums {
    double w, q, qq, x, xq, xx;
} sums;

static int clamp(int q, int least, int most) {
    return q < least ? least : q > most ? most : q;
}

static int nearest(float x) {
    return (int)lrintf(x);
}

static sums add_up(const float *x, const float *weights, const int8_t *q, int n) {
    sums s = {0};
    for (int i = 0; i < n; i++) {
        double w = weights[i], of_q = w * q[i], of_x = w * x[i];
        s.w += w;
        s.q += of_q;
        s.qq += of_q * q[i];
        s.x += of_x;
        s.xq += of_x * q[i];
        s.xx += of_x * x[i];
    }
    return s;
}

/* What is large counts for more: it meets large inputs as often, and adds more to the product. */
static void weigh(float *weights, const float *x, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    float rms = sqrtf(sum / (float)n);
    for (int i = 0; i < n; i++) weights[i] = rms > 0 ? rms + fabsf(x[i]) : 1;
}

/* The line through given integers that leaves the least squares; with below its offset is not
 * above 0. */
static fit fit_line(const sums *s, bool below) {
    double divisor = s->w * s->qq - s->q * s->q, a = 0, c = s->w > 0 ? s->x / s->w : 0;
    if (divisor > 0) {
        a = (s->w * s->xq - s->x * s->q) / divisor;
        c = (s->qq * s->x - s->q * s->xq) / divisor;
    }
    if (below && c > 0) {
        c = 0;
        a = s->qq > 0 ? s->xq / s->qq : 0;
    }
    double error = s->xx + a * a * s->qq + c * c * s->w + 2 * (a * c * s->q - a * s->xq - c * s->x);
    return (fit){(float)a, (float)c, error};
}

/* Integers 0 … top. Ranges around that of the values are tried: what lies at its ends may be
 * clipped, so that the rest is finer. */
static fit fit_range(const float *x, const float *weights, int n, int top, bool below) {
    enum { TRIALS = 24 };
    float low = below ? 0 : x[0], high = x[0];
    int8_t q[CCA_SMALL_BLOCK];
    for (int i = 0; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    fit best = {0, low, DBL_MAX};
    if (high <= low) return best;
    for (int trial = 0; trial <= TRIALS; trial++) {
        float inverse = ((float)top - 1 + 0.1f * (float)trial) / (high - low);
        for (int i = 0; i < n; i++) {
            q[i] = (int8_t)clamp(nearest((x[i] - low) * inverse), 0, top);
        }
        sums s = add_up(x, weights, q, n);
        fit found = fit_line(&s, below);
        if (found.error < best.error) best = found;
    }
    return best;
}

/* Integers -half … half - 1 without an offset; the largest magnitude is brought near to -half, the
 * side with one step more. */
static fit fit_signed(const float *x, const float *weights, int n, int half) {
    enum { TRIALS = 9 };
    float extreme = 0;
    int8_t q[CCA_SMALL_BLOCK];
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    }
    fit best = {0, 0, DBL_MAX};
    if (extreme == 0) return best;
    for (int trial = -TRIALS; trial <= TRIALS; trial++) {
        float inverse = -((float)half + 0.1f * (float)trial) / extreme;
        for (int i = 0; i < n; i++) {
            q[i] = (int8_t)clamp(nearest(x[i] * inverse), -half, half - 1);
        }
        sums s = add_up(x, weights, q, n);
        double a = s.qq > 0 ? s.xq / s.qq : 0, error = s.xx - a * s.xq;
        if (error < best.error) best = (fit){(float)a, 0, error};
    }
    return best;
}

/* The integers least … most nearest to the values on a line, and the error that they leave. */
static double round_to(int8_t *q, const float *x, const float *weights, int n, float scale,
                       float offset, int least, int most) {
    float inverse = scale != 0 ? 1 / scale : 0;
    double error = 0;
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)clamp(nearest((x[i] - offset) * inverse), least, most);
        float gap = scale * (float)q[i] + offset - x[i];
        error += (double)(weights[i] * gap) * gap;
    }
    return error;
}

static bool can_encode(const float *x, int n, float limit) {
    for (int i = 0; i < n; i++) {
        if (!(fabsf(x[i]) < limit)) return false;
    }
    return true;
}

/* The nearest finite f16 number. */
static uint16_t to_half(double x) {
    return cca_f32_to_f16((float)fmax(-65504, fmin(x, 65504)));
}

static float to_half_and_back(double x) {
    return cca_f16_to_f32(to_half(x));
}

/* ---- blocks of 32 -------------------------------------------------------------------- */

/* The lower four bits of each value. */
static void pack_fours(uint8_t *low, const int8_t *q) {
    for (int k = 0; k < CCA_SMALL_BLOCK / 2; k++) {
        low[k] = (uint8_t)((q[k] & 15) | (q[k + CCA_SMALL_BLOCK / 2] & 15) << 4);
    }
}

/* Five bits a value: the lower four, then the upper ones. */
static void pack_fives(uint8_t *low, uint8_t *high, const int8_t *q) {
    memset(high, 0, CCA_SMALL_BLOCK / 8);
    pack_fours(low, q);
    for (int k = 0; k < CCA_SMALL_BLOCK; k++) high[k / 8] |= (uint8_t)((q[k] >> 4 & 1) << k % 8);
}

void cca_encode_q5_0(void *out, const float *in, int64_t n) {
    cca_q5_0 *block = out;
    float weights[CCA_SMALL_BLOCK];
    int8_t q[CCA_SMALL_BLOCK];
    for (int64_t b = 0; b < n / CCA_SMALL_BLOCK; b++, in += CCA_SMALL_BLOCK) {
        memset(&block[b], 0, sizeof block[b]);
        block[b].d = CCA_HALF_NAN;
        if (!can_encode(in, CCA_SMALL_BLOCK, CCA_Q5_0_LIMIT)) continue;
        weigh(weights, in, CCA_SMALL_BLOCK);
        block[b].d = to_half(fit_signed(in, weights, CCA_SMALL_BLOCK, 16).scale);
        round_to(q, in, weights, CCA_SMALL_BLOCK, cca_f16_to_f32(block[b].d), 0, -16, 15);
        for (int k = 0; k < CCA_SMALL_BLOCK; k++) q[k] = (int8_t)(q[k] + 16);
        pack_fives(block[b].q, block[b].high, q);
    }
}

void cca_encode_q5_1(void *out, const float *in, int64_t n) {
    cca_q5_1 *block = out;
    float weights[CCA_SMALL_BLOCK];
    int8_t q[CCA_SMALL_BLOCK];
    for (int64_t b = 0; b < n / CCA_SMALL_BLOCK; b++, in += CCA_SMALL_BLOCK) {
        memset(&block[b], 0, sizeof block[b]);
        block[b].d = block[b].min = CCA_HALF_NAN;
        if (!can_encode(in, CCA_SMALL_BLOCK, CCA_Q5_1_LIMIT)) continue;
        weigh(weights, in, CCA_SMALL_BLOCK);
        fit line = fit_range(in, weights, CCA_SMALL_BLOCK, 31, false);
        block[b].d = to_half(line.scale);
        block[b].min = to_half(line.offset);
        round_to(q, in, weights, CCA_SMALL_BLOCK, cca_f16_to_f32(block[b].d),
                 cca_f16_to_f32(block[b].min), 0, 31);
        pack_fives(block[b].q, block[b].high, q);
    }
}

/* ---- blocks of 256: scales of scales ------------------------------------------------- */

enum { MOST_SUBS = CCA_LARGE_BLOCK / CCA_SCALED };

/* A block under way: sub-blocks of n values, x = d scale q - min minimum (without minima 0). */
typedef struct large {
    const float *x;
    int n_subs, n, least, most;  /* of values */
    int least_scale, most_scale; /* of scales; minima are 0 … most_scale */
    bool minima;
    float d, min;
    int scale[MOST_SUBS], minimum[MOST_SUBS];
    float weights[CCA_LARGE_BLOCK];
    int8_t q[CCA_LARGE_BLOCK];
} large;

static double round_sub(large *l, int s) {
    int at = s * l->n;
    return round_to(l->q + at, l->x + at, l->weights + at, l->n, l->d * (float)l->scale[s],
                    -l->min * (float)l->minimum[s], l->least, l->most);
}

static double round_all(large *l) {
    double error = 0;
    for (int s = 0; s < l->n_subs; s++) error += round_sub(l, s);
    return error;
}

/* The scale and the minimum of a sub-block beside the nearest that leave the least error. */
static void improve_sub(large *l, int s) {
    int scale = l->scale[s], minimum = l->minimum[s], best_scale = scale, best_minimum = minimum;
    double least = DBL_MAX;
    for (int i = -1; i <= 1; i++) {
        for (int k = l->minima ? -1 : 0; k <= (l->minima ? 1 : 0); k++) {
            l->scale[s] = clamp(scale + i, l->least_scale, l->most_scale);
            l->minimum[s] = l->minima ? clamp(minimum + k, 0, l->most_scale) : 0;
            double error = round_sub(l, s);
            if (error >= least) continue;
            least = error;
            best_scale = l->scale[s];
            best_minimum = l->minimum[s];
        }
    }
    l->scale[s] = best_scale;
    l->minimum[s] = best_minimum;
}

/* The least squares' d and min for the integers that there are; kept where they are better. */
static void improve_block(large *l) {
    double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;
    for (int i = 0; i < l->n_subs * l->n; i++) {
        const int sub = i / l->n;
        double w = l->weights[i], u = (double)l->scale[sub] * l->q[i], v = -(double)l->minimum[sub];
        uu += w * u * u;
        uv += w * u * v;
        vv += w * v * v;
        xu += w * u * l->x[i];
        xv += w * v * l->x[i];
    }
    double divisor = uu * vv - uv * uv, d = uu > 0 ? xu / uu : 0, min = 0;
    if (divisor > 1e-9 * uu * vv) {
        d = (xu * vv - xv * uv) / divisor;
        min = (xv * uu - xu * uv) / divisor;
    }
    large other = *l;
    other.d = to_half_and_back(d);
    other.min = to_half_and_back(min);
    if (min >= 0 && round_all(&other) < round_all(l)) *l = other;
}

/* From each sub-block's line to integers of all: d and min are such that the largest are the most
 * that an integer can be. */
static void settle(large *l, const fit lines[MOST_SUBS]) {
    float extreme = 0, lowest = 0;
    for (int s = 0; s < l->n_subs; s++) {
        if (fabsf(lines[s].scale) > fabsf(extreme)) extreme = lines[s].scale;
        lowest = fminf(lowest, lines[s].offset);
    }
    l->d =
        to_half_and_back((double)extreme / (l->least_scale < 0 ? l->least_scale : l->most_scale));
    l->min = to_half_and_back(-(double)lowest / l->most_scale);
    for (int s = 0; s < l->n_subs; s++) {
        l->scale[s] = l->d != 0 ? nearest(lines[s].scale / l->d) : 0;
        l->minimum[s] = l->min > 0 ? nearest(-lines[s].offset / l->min) : 0;
        l->scale[s] = clamp(l->scale[s], l->least_scale, l->most_scale);
        l->minimum[s] = clamp(l->minimum[s], 0, l->most_scale);
        improve_sub(l, s);
    }
    round_all(l);
    improve_block(l);
    for (int s = 0; s < l->n_subs; s++) improve_sub(l, s);
    round_all(l);
}

/* 8 sub-blocks of 32 with minima, integers up to top. */
static void encode_eight(large *l, const float *x, int top) {
    fit lines[MOST_SUBS] = {{0}};
    *l = (large){.x = x, .n_subs = 8, .n = 32, .most = top, .most_scale = 63, .minima = true};
    for (int s = 0; s < l->n_subs; s++) {
        weigh(l->weights + s * l->n, x + s * l->n, l->n);
        lines[s] = fit_range(x + s * l->n, l->weights + s * l->n, l->n, top, true);
    }
    settle(l, lines);
}

/* The inverse of cca_scale_eight. */
static void pack_eight(uint8_t scales[12], const large *l) {
    for (int s = 0; s < 4; s++) {
        scales[s] = (uint8_t)(l->scale[s] | l->scale[s + 4] >> 4 << 6);
        scales[s + 4] = (uint8_t)(l->minimum[s] | l->minimum[s + 4] >> 4 << 6);
        scales[s + 8] = (uint8_t)((l->scale[s + 4] & 15) | (l->minimum[s + 4] & 15) << 4);
    }
}

/* The lower four bits, of each 64 values the first 32 in the low halves. */
static void pack_halves_by_64(uint8_t *out, const int8_t *q) {
    for (int k = 0; k < CCA_LARGE_BLOCK / 2; k++) {
        const int8_t *at = q + k / 32 * 64 + k % 32;
        out[k] = (uint8_t)((at[0] & 15) | (at[32] & 15) << 4);
    }
}

void cca_encode_q4_k(void *out, const float *in, int64_t n) {
    cca_q4_k *block = out;
    for (int64_t b = 0; b < n / CCA_LARGE_BLOCK; b++, in += CCA_LARGE_BLOCK) {
        large l;
        memset(&block[b], 0, sizeof block[b]);
        block[b].d = block[b].min = CCA_HALF_NAN;
        if (!can_encode(in, CCA_LARGE_BLOCK, CCA_K_LIMIT)) continue;
        encode_eight(&l, in, 15);
        block[b].d = to_half(l.d);
        block[b].min = to_half(l.min);
        pack_eight(block[b].scales, &l);
        pack_halves_by_64(block[b].q, l.q);
    }
}

void cca_encode_q5_k(void *out, const float *in, int64_t n) {
    cca_q5_k *block = out;
    for (int64_t b = 0; b < n / CCA_LARGE_BLOCK; b++, in += CCA_LARGE_BLOCK) {
        large l;
        memset(&block[b], 0, sizeof block[b]);
        block[b].d = block[b].min = CCA_HALF_NAN;
        if (!can_encode(in, CCA_LARGE_BLOCK, CCA_K_LIMIT)) continue;
        encode_eight(&l, in, 31);
        block[b].d = to_half(l.d);
        block[b].min = to_half(l.min);
        pack_eight(block[b].scales, &l);
        pack_halves_by_64(block[b].q, l.q);
        for (int k = 0; k < CCA_LARGE_BLOCK; k++) {
            block[b].high[k % 32] |= (uint8_t)(l.q[k] >> 4 << k / 32);
        }
    }
}

/* Of each 128 values the lower four bits of the first 64 in the low halves; the upper two four to a
 * byte. */
static void pack_sixes(cca_q6_k *out, const int8_t *q) {
    for (int part = 0; part < 2; part++, q += 128) {
        for (int k = 0; k < 64; k++) {
            int first = q[k] + 32, second = q[64 + k] + 32;
            out->q[64 * part + k] = (uint8_t)((first & 15) | (second & 15) << 4);
        }
        for (int k = 0; k < 128; k++) {
            out->high[32 * part + k % 32] |= (uint8_t)((q[k] + 32) >> 4 << k / 32 * 2);
        }
    }
}

void cca_encode_q6_k(void *out, const float *in, int64_t n) {
    cca_q6_k *block = out;
    for (int64_t b = 0; b < n / CCA_LARGE_BLOCK; b++, in += CCA_LARGE_BLOCK) {
        fit lines[MOST_SUBS];
        large l = {.x = in,
                   .n_subs = 16,
                   .n = 16,
                   .least = -32,
                   .most = 31,
                   .least_scale = -128,
                   .most_scale = 127};
        memset(&block[b], 0, sizeof block[b]);
        block[b].d = CCA_HALF_NAN;
        if (!can_encode(in, CCA_LARGE_BLOCK, CCA_Q6_K_LIMIT)) continue;
        for (int s = 0; s < l.n_subs; s++) {
            weigh(l.weights + s * l.n, in + s * l.n, l.n);
            lines[s] = fit_signed(in + s * l.n, l.weights + s * l.n, l.n, 32);
        }
        settle(&l, lines);
        block[b].d = to_half(l.d);
        for (int s = 0; s < l.n_subs; s++) block[b].scales[s] = (int8_t)l.scale[s];
        pack_sixes(&block[b], l.q);
    }
}

/* ---- the same q in other blocks -------------------------------------------------------- */

static void put_q8_0(cca_q8_0 *out, const cca_apart *a, int i) {
    out->scale = cca_f32_to_f16(a->scale[i * CCA_SMALL_BLOCK / CCA_SCALED]);
    memcpy(out->q, a->q + i * CCA_SMALL_BLOCK, sizeof out->q);
}

static void put_q4_1(cca_q4_1 *out, const cca_apart *a, int i) {
    out->d = cca_f32_to_f16(a->scale[i * CCA_SMALL_BLOCK / CCA_SCALED]);
    out->min = cca_f32_to_f16(-a->min[i * CCA_SMALL_BLOCK / CCA_SCALED]);
    pack_fours(out->q, a->q + i * CCA_SMALL_BLOCK);
}

static void put_q5_1(cca_q5_1 *out, const cca_apart *a, int i) {
    out->d = cca_f32_to_f16(a->scale[i * CCA_SMALL_BLOCK / CCA_SCALED]);
    out->min = cca_f32_to_f16(-a->min[i * CCA_SMALL_BLOCK / CCA_SCALED]);
    pack_fives(out->q, out->high, a->q + i * CCA_SMALL_BLOCK);
}

#define OTHER_BLOCKS(to, from, block)                                                              \
    void cca_##to##_of_##from(void *out, const void *in, int64_t n) {                              \
        enum { EACH = (block) / CCA_SMALL_BLOCK };                                                 \
        for (int64_t b = 0; b < n / (block); b++) {                                                \
            cca_apart a;                                                                           \
            cca_apart_##from(&a, 0, (const cca_##from *)in + b);                                   \
            for (int i = 0; i < EACH; i++) put_##to((cca_##to *)out + b * EACH + i, &a, i);        \
        }                                                                                          \
    }

OTHER_BLOCKS(q8_0, q5_0, CCA_SMALL_BLOCK)
OTHER_BLOCKS(q8_0, iq4_nl, CCA_SMALL_BLOCK)
OTHER_BLOCKS(q8_0, iq4_xs, CCA_LARGE_BLOCK)
OTHER_BLOCKS(q4_1, q4_k, CCA_LARGE_BLOCK)
OTHER_BLOCKS(q5_1, q5_k, CCA_LARGE_BLOCK)
