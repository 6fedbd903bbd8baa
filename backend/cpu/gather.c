/* Chosen groups of rows, copied to where they lie one behind the other, or kept. */
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

/* A group of a head to the to-th place of another. */
static void gather_group(const cca_rows *out, const cca_rows *in, int64_t head, int64_t to,
                         int64_t group, int64_t group_size) {
    int64_t n = group_size * in->head_dim;
    int64_t there = head * out->capacity * in->head_dim + to * n;
    int64_t here = head * in->capacity * in->head_dim + group * n;
    gather_side(out->k, out->k_type, in->k, in->k_type, there, here, n);
    gather_side(out->v, out->v_type, in->v, in->v_type, there, here, n);
}

void cca_cpu_gather(cca_backend *b, const cca_rows *out, const cca_rows *in, const cca_choice *c,
                    int64_t n_tiles) {
    (void)b;
    int64_t g = c->group_size;
    for (int64_t i = 0; i < n_tiles * in->heads * c->most; i++) {
        int64_t tile = i / c->most / in->heads, head = i / c->most % in->heads, at = i % c->most;
        if (at >= c->counts[tile * in->heads + head]) continue;
        gather_group(out, in, head, tile * c->most + at, c->groups[i], g);
    }
}

/* Gives the groups that are chosen and there already their old places; of all places, which are
 * taken so. */
static void keep_places(const cca_kept *k, const int32_t *chosen, int64_t n, int64_t at,
                        int64_t most, int64_t n_known, bool *taken) {
    const int32_t *there = k->groups + at;
    memset(taken, 0, (size_t)most * sizeof *taken);
    for (int64_t i = 0, old = 0; i < n; i++) {
        while (old < most && there[old] < chosen[i]) old++;
        bool stays = old < most && there[old] == chosen[i] && chosen[i] < n_known;
        k->next_groups[at + i] = chosen[i];
        k->next_places[at + i] = stays ? k->places[at + old] : -1;
        if (stays) taken[k->places[at + old]] = true;
    }
    for (int64_t i = n; i < most; i++) k->next_groups[at + i] = CCA_NO_GROUP;
}

void cca_cpu_renew(cca_backend *b, const cca_kept *k, const cca_rows *in, const cca_choice *c,
                   int64_t n_known) {
    bool taken[CCA_MOST_KEPT];
    (void)b;
    for (int64_t head = 0; head < in->heads; head++) {
        int64_t at = head * c->most, n = c->counts[head], place = 0;
        keep_places(k, c->groups + at, n, at, c->most, n_known, taken);
        for (int64_t i = at; i < at + n; i++) {
            if (k->next_places[i] >= 0) continue;
            while (taken[place]) place++;
            k->next_places[i] = (int32_t)place;
            gather_group(&k->rows, in, head, place++, c->groups[i], c->group_size);
        }
    }
}
