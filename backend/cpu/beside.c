/* What the CPU backend keeps for itself, reckoned before there is any of it. */
#include "backend/cpu/cpu.h"

enum { OF_THREAD = 64 << 10 }; /* its stack, the system's for it, and what both keep of it */

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Of a tile that chooses from all groups; what it has to look through never falls behind. */
static size_t choose_scratch(const cca_kernels *k, const cca_layer_sizes *l) {
    const cca_edge none = {.period = 1};
    const cca_edge all = {.period = 1, .step = l->n_groups, .most = l->n_groups};
    const cca_range groups = {none, all};
    const cca_rows bounds = {
        .k_type = l->k_type, .heads = l->choice.heads, .head_dim = l->head_dim};
    const cca_choose_args args = {.out = &l->choice,
                                  .bounds = &bounds,
                                  .blocks = l->n_groups >= l->choice.levels_from ? &bounds : NULL,
                                  .groups = &groups,
                                  .n_heads = l->n_heads,
                                  .n = cca_min(l->choice.tile, l->n_tokens)};
    return l->n_groups > 0 ? cca_choose_bytes(k, &args) : 0;
}

/* Operands in the form that products want, of a chunk or of one token. */
static size_t x_bytes(const cca_kernels *k, const cca_layer_sizes *l) {
    int64_t width = cca_max(l->dim, l->hidden_dim);
    size_t many = k->products(l->type)->x_bytes(l->type, width);
    size_t few = k->few(l->type)->x_bytes(l->type, width);
    size_t each = larger(many, few);
    return each ? (size_t)l->n_tokens * (each + CCA_CPU_ALIGNMENT) : 0;
}

size_t cca_cpu_kept(const cca_kernels *k, int n_threads, const cca_layer_sizes *l) {
    size_t floats = (size_t)cca_attend_scratch(l->head_dim); /* more than bounds want */
    floats = larger(floats, (size_t)cca_pool_scratch(l->choice.group_size, l->head_dim));
    size_t scratch = larger(floats * sizeof(float), choose_scratch(k, l));
    scratch = larger(scratch, k->products(l->type)->panel_bytes(l->type, CCA_CPU_DEPTH));
    scratch += 3 * CCA_CPU_ALIGNMENT; /* rounded up, and what is in front of memory and behind */
    return (size_t)n_threads * scratch + (size_t)(n_threads - 1) * OF_THREAD + x_bytes(k, l);
}
