#include "check/work.h"

/* Keys that position pos sees, all heads together, and their bytes. */
static double seen_keys(double *bytes, const cca_config *c, const cca_state_options *o,
                        int64_t pos) {
    const cca_rule *rule = &o->policy.rule;
    cca_range window = cca_rule_window(rule), first = cca_rule_sinks(rule);
    cca_range groups = cca_rule_groups(rule);
    int64_t behind = cca_range_count(&groups, pos);
    int64_t recalled = cca_min(behind, o->policy.recall / rule->group_size);
    double raw = (double)(cca_range_count(&window, pos) + cca_range_count(&first, pos));
    double far = (double)(recalled * rule->group_size);
    double rest = rule->cores ? (double)(behind - recalled) : 0;
    size_t k = 0, v = 0, row_k = 0, row_v = 0;
    cca_dtype_row_bytes(&k, o->k_type, c->head_dim);
    cca_dtype_row_bytes(&v, o->v_type, c->head_dim);
    cca_dtype_row_bytes(&row_k, o->row_k_type, c->head_dim);
    cca_dtype_row_bytes(&row_v, o->row_v_type, c->head_dim);
    double heads = (double)c->n_heads, kv_heads = (double)c->n_kv_heads;
    *bytes = (double)c->n_layers * ((double)(k + v) * (raw * kv_heads + rest * heads) +
                                    (double)(row_k + row_v) * far * kv_heads);
    return (raw + far + rest) * heads;
}

static double values_of(cca_role role, const cca_config *c) {
    cca_shape shape = cca_tensor_shape(role, c);
    return (double)shape.rows * (double)shape.cols;
}

cca_work_count cca_count_work(const cca_config *c, const cca_state_options *o, int64_t pos,
                              int64_t n, int64_t n_logits) {
    double layers = (double)c->n_layers, hd = (double)c->head_dim, keys = 0, groups = 0;
    double layer = 0, logits = values_of(CCA_EMBEDDING, c);
    for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
        if (cca_tensors[r].input) layer += values_of(r, c);
    }
    cca_work_count w = {0};
    for (int64_t i = 0; i < n; i++) keys += seen_keys(&w.cache_bytes, c, o, pos + i);
    if (o->policy.rule.cores) groups = (double)n;
    w.products = 2 * ((double)n * layers * layer + (double)n_logits * logits);
    w.attention = layers * hd * (4 * keys + 6 * groups * (double)c->n_heads);
    return w;
}
