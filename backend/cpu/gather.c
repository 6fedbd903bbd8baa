/* Chosen groups of rows, copied to where they lie one behind the other. */
#include "backend/cpu/cpu.h"

#include <string.h>

static void gather_side(char *out, cca_dtype out_type, const char *in, cca_dtype in_type,
                        int64_t to, int64_t from, int64_t n_values) {
    size_t to_bytes = 0, from_bytes = 0, bytes = 0;
    cca_dtype_row_bytes(&to_bytes, out_type, to);
    cca_dtype_row_bytes(&from_bytes, in_type, from);
    cca_dtype_row_bytes(&bytes, in_type, n_values);
    if (in_type == out_type) {
        memcpy(out + to_bytes, in + from_bytes, bytes);
    } else {
        cca_dtype_convert(out + to_bytes, out_type, in + from_bytes, in_type, n_values);
    }
}

void cca_cpu_gather(cca_backend *b, const cca_rows *out, const cca_rows *in, const cca_choice *c,
                    int64_t n_tiles) {
    (void)b;
    int64_t hd = in->head_dim, g = c->group_size;
    for (int64_t i = 0; i < n_tiles * in->heads * c->most; i++) {
        int64_t tile = i / c->most / in->heads, head = i / c->most % in->heads, at = i % c->most;
        if (at >= c->counts[tile * in->heads + head]) continue;
        int64_t to = (head * out->capacity + (tile * c->most + at) * g) * hd;
        int64_t from = (head * in->capacity + c->groups[i] * g) * hd;
        gather_side(out->k, out->k_type, in->k, in->k_type, to, from, g * hd);
        gather_side(out->v, out->v_type, in->v, in->v_type, to, from, g * hd);
    }
}
