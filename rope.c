#include "rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Dimension pair that turns `rotations` times over the original context (YaRN, eq. 18 there). */
static double yarn_dim(const cca_config *c, double rotations) {
    return (double)cca_rope_dims(c) * log(c->rope_original / (rotations * 2 * M_PI)) /
           (2 * log(c->rope_theta));
}

static void scale_yarn(double *inv_freq, const cca_config *c) {
    double low = fmax(floor(yarn_dim(c, c->yarn_beta_fast)), 0);
    double high = fmin(ceil(yarn_dim(c, c->yarn_beta_slow)), (double)cca_rope_dims(c) - 1);
    for (int64_t k = 0; k < cca_rope_dims(c) / 2; k++) {
        double ramp = fmin(fmax(((double)k - low) / fmax(high - low, 0.001), 0), 1);
        inv_freq[k] *= ramp / c->rope_factor + (1 - ramp);
    }
}

/* A factor of q · k other than 1/sqrt(head_dim) lies in the length of turned q and k. */
static double scale_of_scores(const cca_config *c) {
    const double a = c->scales.attention;
    return a == 0 ? 1 : sqrt(a * sqrt((double)c->head_dim));
}

/* Divides by a tensor of the file. */
static cca_status divide(double *inv_freq, cca_role role, const cca_config *c, const cca_gguf *file,
                         cca_error *err) {
    cca_tensor_place place;
    cca_status status = cca_tensor_find(&place, file, role, 0, c, err);
    if (status) return status;
    const char *path = cca_gguf_name(file), *name = place.tensor->name;
    if (place.tensor->type != CCA_F32) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s must hold f32 values", path, name);
    }
    for (int64_t k = 0; k < cca_rope_dims(c) / 2; k++) {
        float divisor;
        memcpy(&divisor, (const char *)place.data + (size_t)k * sizeof divisor, sizeof divisor);
        if (!(divisor > 0) || !isfinite(divisor)) {
            return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s: value %lld is not positive", path,
                            name, (long long)k);
        }
        inv_freq[k] /= divisor;
    }
    return CCA_OK;
}

/* Frequencies without any scaling; dims that do not turn have 0. */
static double *plain(const cca_config *c) {
    const int64_t turned = cca_rope_dims(c) / 2;
    double *inv_freq = calloc((size_t)(c->head_dim / 2), sizeof *inv_freq);
    for (int64_t k = 0; inv_freq && k < turned; k++) {
        inv_freq[k] = pow(c->rope_theta, -(double)k / (double)turned);
    }
    return inv_freq;
}

static cca_status make_usual(cca_ropes *out, const cca_config *c, const cca_gguf *file,
                             cca_error *err) {
    double *inv_freq = out->inv_freq[CCA_ROPE_USUAL];
    switch (c->rope_kind) {
    case CCA_ROPE_PLAIN: break;
    case CCA_ROPE_LINEAR:
        for (int64_t k = 0; k < c->head_dim / 2; k++) inv_freq[k] /= c->rope_factor;
        break;
    case CCA_ROPE_FACTORS: return divide(inv_freq, CCA_ROPE_DIVISORS, c, file, err);
    case CCA_ROPE_YARN: scale_yarn(inv_freq, c); break;
    case CCA_ROPE_LONGROPE: return divide(inv_freq, CCA_ROPE_SHORT_DIVISORS, c, file, err);
    }
    return CCA_OK;
}

cca_status cca_ropes_make(cca_ropes *out, const cca_config *c, const cca_gguf *file,
                          cca_error *err) {
    const bool yarn = c->rope_kind == CCA_ROPE_YARN, longrope = c->rope_kind == CCA_ROPE_LONGROPE;
    const double own = yarn       ? c->rope_attn_factor * (1 + 0.1 * log(c->rope_factor))
                       : longrope ? c->rope_attn_factor
                                  : 1;
    const bool used[CCA_N_ROPE_USES] = {[CCA_ROPE_USUAL] = true,
                                        [CCA_ROPE_LONG_CONTEXT] = longrope,
                                        [CCA_ROPE_IN_WINDOWS] = c->arch->plain_in_windows &&
                                                                c->own_window > 0 &&
                                                                c->rope_kind != CCA_ROPE_PLAIN};
    out->half = c->head_dim / 2;
    out->interleaved = c->arch->interleaved;
    out->still = (float)scale_of_scores(c);
    out->original = (int64_t)c->rope_original;
    for (int use = 0; use < CCA_N_ROPE_USES; use++) {
        if (!used[use]) continue;
        out->scale[use] = (float)(scale_of_scores(c) * (use == CCA_ROPE_IN_WINDOWS ? 1 : own));
        out->inv_freq[use] = plain(c);
        if (out->inv_freq[use]) continue;
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the RoPE frequencies");
    }
    cca_status status = make_usual(out, c, file, err);
    if (status || !longrope) return status;
    return divide(out->inv_freq[CCA_ROPE_LONG_CONTEXT], CCA_ROPE_LONG_DIVISORS, c, file, err);
}

void cca_ropes_free(cca_ropes *ropes) {
    for (int use = 0; use < CCA_N_ROPE_USES; use++) free(ropes->inv_freq[use]);
    *ropes = (cca_ropes){0};
}

static cca_rope rope_for(const cca_ropes *r, cca_rope_use use) {
    return (cca_rope){.inv_freq = r->inv_freq[use],
                      .half = r->half,
                      .scale = r->scale[use],
                      .interleaved = r->interleaved,
                      .still = r->still};
}

cca_rope cca_ropes_of(const cca_ropes *r, int64_t ctx_size) {
    const bool is_long = r->inv_freq[CCA_ROPE_LONG_CONTEXT] && ctx_size > r->original;
    return rope_for(r, is_long ? CCA_ROPE_LONG_CONTEXT : CCA_ROPE_USUAL);
}

bool cca_ropes_in_windows(cca_rope *out, const cca_ropes *r) {
    *out = rope_for(r, CCA_ROPE_IN_WINDOWS);
    return out->inv_freq != NULL;
}
