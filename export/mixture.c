#include "export/mixture.h"

#include <strings.h>

/* llama.cpp's numbers for "mostly of this type" are those of mixtures, too. */
struct cca_mixture {
    const char *name;
    cca_dtype type;
    uint32_t file_type;
};

static const cca_mixture mixtures[] = {{"q4_k_m", CCA_Q4_K, 15}, {"q5_k_m", CCA_Q5_K, 17}};

enum { N_MIXTURES = sizeof mixtures / sizeof *mixtures };

uint32_t cca_mixture_file_type(const cca_mixture *m) {
    return m->file_type;
}

bool cca_export_type_parse(cca_export_options *out, const char *name) {
    out->mixture = NULL;
    for (int i = 0; i < N_MIXTURES; i++) {
        if (strcasecmp(name, mixtures[i].name) != 0) continue;
        out->mixture = &mixtures[i];
        out->type = mixtures[i].type;
        return true;
    }
    return cca_dtype_parse(&out->type, name) && cca_dtype_find(out->type)->encode;
}

/* Whether values of a type take less than a byte each. */
static bool is_narrow(cca_dtype type) {
    const cca_dtype_facts *t = cca_dtype_find(type);
    return t->block_bytes < (size_t)t->block;
}

/* The first and the last eighth of the layers, and every third between them. */
static bool is_sensitive(int64_t layer, int64_t n_layers) {
    int64_t eighth = n_layers / 8;
    return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

static cca_dtype mixed_type(const cca_config *c, cca_role role, int64_t layer, cca_dtype type) {
    if (role != CCA_ATTN_V && role != CCA_FFN_DOWN) return type;
    if (is_sensitive(layer, c->n_layers)) return CCA_Q6_K;
    /* In models of 80 layers whose query heads share values, these are small. */
    bool shares = c->n_layers == 80 && c->n_heads != c->n_kv_heads && role == CCA_ATTN_V;
    return shares && type == CCA_Q4_K ? CCA_Q5_K : type;
}

/* The matrix that makes the logits suffers most from few bits: it gets six beside K-quants, and
 * eight beside Q4_0. */
cca_dtype cca_export_type_wanted(const cca_config *config, cca_role role, int64_t layer,
                                 cca_dtype own, const cca_export_options *options) {
    if (!options->has_type) return own;
    cca_dtype type = options->type;
    bool makes_logits = role == CCA_OUTPUT || (role == CCA_EMBEDDING && config->tied);
    if (makes_logits && is_narrow(type)) {
        return cca_dtype_block(type) == CCA_LARGE_BLOCK ? CCA_Q6_K : CCA_Q8_0;
    }
    return options->mixture ? mixed_type(config, role, layer, type) : type;
}

cca_dtype cca_export_type_of(const cca_config *config, cca_role role, int64_t layer, int64_t cols,
                             cca_dtype own, const cca_export_options *options) {
    cca_dtype type = cca_export_type_wanted(config, role, layer, own, options);
    while (cols % cca_dtype_block(type) != 0) type = cca_dtype_find(type)->in_place;
    return type;
}
