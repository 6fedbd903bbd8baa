#include "cca_share.h"

#include "cca_parts.h"
#include "cca_spread.h"

#include <stdlib.h>
#include <string.h>

/* One message: a transfer, and its rows, keys before values, in memory of the host, or of the
 * device where that sends by itself. */
typedef struct parcel {
    cca_transfer t;
    char *data;
    bool packs; /* others have the same to send, and this one packs it */
    size_t k_bytes, bytes;
} parcel;

/* What is sent and received in a wave. */
typedef struct wave_mail {
    parcel *in, *out;
    cca_mail *to, *from;
    int n_in, n_out;
    cca_exchange *exchange;
} wave_mail;

struct cca_share {
    cca_cache *cache;
    cca_comm *comm;
    cca_comm *device; /* for memory of the backend; NULL: messages go by way of the host */
    int rank;
    cca_slices slices;
    cca_rows rows[CCA_WAVES]; /* of slices, and the windows before them; k NULL: in the cache */
    cca_transfers list;       /* all that this rank takes part in */
    wave_mail mail[CCA_SENDINGS];
};

/* ---- slices -------------------------------------------------------------------------- */

static int64_t common_multiple(int64_t a, int64_t b) {
    int64_t x = a, y = b;
    while (y != 0) {
        int64_t rest = x % y;
        x = y;
        y = rest;
    }
    return x > 0 ? a / x * b : 1;
}

/* What slices of a cache begin at multiples of, and with chunks. */
static int64_t unit_of(const cca_cache *c, bool chunks) {
    int64_t unit = common_multiple(c->policy.rule.group_size, c->policy.tile);
    return chunks ? common_multiple(unit, c->shape.chunk_size) : unit;
}

/* Slices begin where chunks do, if there are enough: then all cuts are those of one process, and so
 * are the bits. */
bool cca_share_slices(cca_slices *out, const cca_cache *c, const cca_cache *also, int n_ranks,
                      int64_t pos, int64_t n) {
    if (!also) also = c;
    int64_t unit = common_multiple(unit_of(c, false), unit_of(also, false));
    int64_t chunks = common_multiple(unit_of(c, true), unit_of(also, true));
    *out = (cca_slices){.n_ranks = n_ranks, .begin = pos, .end = pos + n};
    out->unit = n / cca_slice_count(out) >= chunks ? chunks : unit;
    out->together = cca_max(c->arrays[ARRAY_SINKS].rows, also->arrays[ARRAY_SINKS].rows);
    cca_slice last = cca_slice_at(out, cca_slice_count(out) - 1);
    return last.begin < last.end && n / cca_slice_count(out) >= unit;
}

cca_slices cca_share_all(const cca_share *s) {
    return s->slices;
}

cca_slice cca_share_slice(const cca_share *s, int wave) {
    return cca_slice_at(&s->slices, cca_slice_of(&s->slices, s->rank, wave));
}

/* ---- rows ---------------------------------------------------------------------------- */

static array_kind array_of(cca_sent kind) {
    static const array_kind arrays[CCA_N_SENT] = {[CCA_SENT_RAW] = ARRAY_RAW,
                                                  [CCA_SENT_SINKS] = ARRAY_SINKS,
                                                  [CCA_SENT_CORES] = ARRAY_CORES,
                                                  [CCA_SENT_BOUNDS] = ARRAY_BOUNDS,
                                                  [CCA_SENT_ROWS] = ARRAY_ROWS};
    return arrays[kind];
}

static cca_rows cached(const cca_share *s, array_kind kind, int64_t layer) {
    return cca_cache_rows(s->cache, kind, layer, 0);
}

/* Raw rows of a slice; those before the text are in the cache. */
static cca_rows raw_rows(const cca_share *s, int64_t layer, int wave) {
    if (wave >= 0 && s->rows[wave].k) return s->rows[wave];
    return cached(s, ARRAY_RAW, layer);
}

/* Where a transfer's rows are made, and where they are wanted. */
static cca_rows source_of(const cca_share *s, const cca_transfer *t, int64_t layer) {
    if (t->kind != CCA_SENT_RAW) return cached(s, array_of(t->kind), layer);
    return raw_rows(s, layer, t->source < 0 || t->wave == CCA_RELAY ? -1 : t->wave);
}

static cca_rows target_of(const cca_share *s, const cca_transfer *t, int64_t layer) {
    if (t->kind != CCA_SENT_RAW) return cached(s, array_of(t->kind), layer);
    return raw_rows(s, layer, t->target);
}

/* ---- memory -------------------------------------------------------------------------- */

static cca_share_needs needs_of(const cca_cache *c) {
    const cca_rule *rule = &c->policy.rule;
    int n_held = 0;
    const cca_holding *held = c->spread ? cca_spread_before(c->spread, &n_held) : NULL;
    return (cca_share_needs){.group_size = rule->group_size,
                             .window_size = rule->window_size,
                             .ring = c->all_rows ? 0 : cca_rule_ring(rule),
                             .n_sinks = c->arrays[ARRAY_SINKS].rows,
                             .cores = cca_cache_has(c, ARRAY_CORES),
                             .bounds = cca_cache_has(c, ARRAY_BOUNDS),
                             .rows = cca_cache_has(c, ARRAY_ROWS),
                             .held = held,
                             .n_held = n_held};
}

/* A slice's raw rows behind those of the window before it, without their memory; none where all raw
 * rows are in the cache. */
static cca_rows slice_rows(size_t *k, size_t *v, const cca_cache *c, cca_slice slice) {
    const row_array *a = &c->arrays[ARRAY_RAW];
    cca_rows rows = {.k_type = a->k_type, .v_type = a->v_type, .heads = a->heads};
    *k = *v = 0;
    if (c->all_rows || slice.begin == slice.end) return rows;
    rows.head_dim = c->shape.head_dim;
    rows.base = cca_max(slice.begin - cca_rule_ring(&c->policy.rule), 0);
    rows.capacity = slice.end - rows.base;
    cca_cache_rows_bytes(k, c, rows.k_type, 1, rows.heads, rows.capacity);
    cca_cache_rows_bytes(v, c, rows.v_type, 1, rows.heads, rows.capacity);
    return rows;
}

static void make_rows(cca_share *s, int wave) {
    size_t k, v;
    cca_rows rows = slice_rows(&k, &v, s->cache, cca_share_slice(s, wave));
    if (rows.capacity == 0) return;
    rows.k = cca_backend_alloc(s->cache->backend, k);
    rows.v = cca_backend_alloc(s->cache->backend, v);
    s->rows[wave] = rows;
}

/* Bytes of a transfer's keys, and of its values. */
static void transfer_bytes(size_t *k, size_t *v, const cca_cache *c, const cca_transfer *t) {
    const row_array *a = &c->arrays[array_of(t->kind)];
    *k = *v = 0;
    cca_cache_rows_bytes(k, c, a->k_type, 1, a->heads, t->n);
    cca_cache_rows_bytes(v, c, a->v_type, 1, a->heads, t->n);
}

static bool same_rows(const cca_transfer *a, const cca_transfer *b) {
    return a->kind == b->kind && a->source == b->source && a->first == b->first && a->n == b->n;
}

static void *alloc_message(const cca_share *s, size_t bytes) {
    return s->device ? cca_backend_alloc(s->cache->backend, bytes) : malloc(bytes);
}

static void free_message(const cca_share *s, void *data) {
    if (s->device) {
        cca_backend_release(s->cache->backend, data);
    } else {
        free(data);
    }
}

/* Memory for a transfer, or that of one before it with the same rows. */
static bool make_parcel(parcel *p, const cca_share *s, const parcel *before, int n_before) {
    size_t v;
    transfer_bytes(&p->k_bytes, &v, s->cache, &p->t);
    p->bytes = p->k_bytes + v;
    for (int i = 0; i < n_before && !p->data; i++) {
        if (same_rows(&before[i].t, &p->t)) p->data = before[i].data;
    }
    p->packs = !p->data;
    if (p->packs) p->data = alloc_message(s, p->bytes);
    return p->data;
}

static bool make_mail(cca_share *s, int wave) {
    wave_mail *m = &s->mail[wave];
    size_t n = (size_t)s->list.n + 1;
    m->in = calloc(n, sizeof *m->in);
    m->out = calloc(n, sizeof *m->out);
    m->to = calloc(n, sizeof *m->to);
    m->from = calloc(n, sizeof *m->from);
    if (!m->in || !m->out || !m->to || !m->from) return false;
    for (int i = 0; i < s->list.n; i++) {
        const cca_transfer *t = &s->list.at[i];
        if (t->wave != wave || t->from == t->to) continue;
        bool out = t->from == s->rank;
        int *count = out ? &m->n_out : &m->n_in;
        parcel *p = (out ? m->out : m->in) + *count;
        p->t = *t;
        if (!make_parcel(p, s, m->out, out ? m->n_out : 0)) return false;
        (out ? m->to : m->from)[*count] = (cca_mail){out ? t->to : t->from, p->data, p->bytes};
        ++*count;
    }
    return true;
}

static cca_status make_share(cca_share *s, cca_error *err) {
    cca_spread *spread = s->cache->spread;
    cca_status status = spread ? cca_spread_share(spread, &s->slices, err) : CCA_OK;
    cca_share_needs needs = needs_of(s->cache);
    if (!status) status = cca_transfers_make(&s->list, &s->slices, &needs, s->rank, err);
    for (int wave = 0; wave < CCA_SENDINGS && !status; wave++) {
        if (wave < CCA_WAVES) make_rows(s, wave);
        if (make_mail(s, wave)) continue;
        status = cca_fail(err, CCA_NO_MEMORY, "no memory for messages to other ranks");
    }
    return status ? status : cca_backend_sync(s->cache->backend, err);
}

cca_status cca_share_new(cca_share **out, cca_cache *cache, const cca_cache *also, cca_comm *comm,
                         int64_t pos, int64_t n, cca_error *err) {
    cca_slices slices;
    cca_comm *device;
    *out = NULL;
    if (cache->disk || cache->near) {
        return cca_fail(err, CCA_USAGE,
                        "a prompt that ranks share has its rows in memory, in the window's types");
    }
    if (!cca_share_slices(&slices, cache, also, cca_comm_n_ranks(comm), pos, n)) {
        return cca_fail(err, CCA_NO_FIT, "%lld tokens are too few for %d ranks", (long long)n,
                        slices.n_ranks);
    }
    /* All ranks come as far as this, or none does. */
    cca_status status = cca_comm_on_device(&device, comm, cache->backend, err);
    if (status) return status;
    cca_share *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "no memory for a share of a prompt");
    s->cache = cache;
    s->comm = comm;
    s->device = device;
    s->rank = cca_comm_rank(comm);
    s->slices = slices;
    status = make_share(s, err);
    if (status) {
        cca_share_free(s);
        return status;
    }
    *out = s;
    return CCA_OK;
}

static void free_parcels(const cca_share *s, parcel *list, int n) {
    for (int i = 0; i < n; i++) {
        if (list[i].packs) free_message(s, list[i].data);
    }
    free(list);
}

void cca_share_free(cca_share *s) {
    if (!s) return;
    const bool sound = cca_comm_sound(s->comm); /* else messages may still come in */
    for (int i = 0; i < CCA_SENDINGS; i++) {
        wave_mail *m = &s->mail[i];
        if (m->in && sound) free_parcels(s, m->in, m->n_in);
        if (m->out && sound) free_parcels(s, m->out, m->n_out);
        free(m->to);
        free(m->from);
    }
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        cca_backend_release(s->cache->backend, s->rows[wave].k);
        cca_backend_release(s->cache->backend, s->rows[wave].v);
    }
    cca_transfers_free(&s->list);
    free(s);
}

/* Adds what a rank has, sends and gets. */
static void measure_rank(cca_share_size *out, const cca_cache *c, const cca_slices *slices,
                         const cca_transfers *list, int rank) {
    uint64_t sent = 0, received = 0;
    int64_t tokens = 0;
    size_t memory = 0;
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        size_t k, v;
        cca_slice own = cca_slice_at(slices, cca_slice_of(slices, rank, wave));
        (void)slice_rows(&k, &v, c, own);
        tokens += own.end - own.begin;
        memory += k + v;
    }
    for (int i = 0; i < list->n; i++) {
        const cca_transfer *t = &list->at[i];
        size_t k, v;
        int before = 0;
        if (t->from == t->to) continue;
        transfer_bytes(&k, &v, c, t);
        if (t->from == rank) sent += k + v;
        if (t->to == rank) received += k + v;
        while (before < i && !(list->at[before].from == rank && same_rows(&list->at[before], t))) {
            before++;
        }
        if (before == i || t->to == rank) memory += k + v;
    }
    out->sent_bytes += sent;
    if (sent > out->most_sent_bytes) out->most_sent_bytes = sent;
    if (received > out->most_received_bytes) out->most_received_bytes = received;
    if (memory > out->most_bytes) out->most_bytes = memory;
    out->most_tokens = cca_max(out->most_tokens, tokens);
}

cca_status cca_share_measure(cca_share_size *out, const cca_cache_shape *shape,
                             const cca_policy *policy, int n_ranks, int64_t pos, int64_t n,
                             cca_error *err) {
    cca_cache c;
    cca_slices slices;
    cca_status status = CCA_OK;
    *out = (cca_share_size){0};
    cca_cache_count(&c, shape, policy);
    cca_share_needs needs = needs_of(&c);
    if (!cca_share_slices(&slices, &c, NULL, n_ranks, pos, n)) {
        return cca_fail(err, CCA_NO_FIT, "%lld tokens are too few for %d ranks", (long long)n,
                        n_ranks);
    }
    for (int rank = 0; rank < n_ranks && !status; rank++) {
        cca_transfers list;
        status = cca_transfers_make(&list, &slices, &needs, rank, err);
        if (!status) measure_rank(out, &c, &slices, &list, rank);
        if (!status) cca_transfers_free(&list);
    }
    size_t k = 0, v = 0; /* of a share's raw rows */
    cca_cache_rows_bytes(&k, &c, shape->k_type, 1, shape->n_kv_heads, n / n_ranks);
    cca_cache_rows_bytes(&v, &c, shape->v_type, 1, shape->n_kv_heads, n / n_ranks);
    out->ring_bytes = (k + v) * (uint64_t)(n_ranks - 1);
    return status;
}

/* ---- a layer ------------------------------------------------------------------------- */

/* Windows that lie in what this rank has itself: before the text, or in its first slice. */
static void move_own(cca_share *s, int64_t layer, bool before) {
    for (int i = 0; i < s->list.n; i++) {
        const cca_transfer *t = &s->list.at[i];
        if (t->from != t->to || (t->source < 0) != before) continue;
        cca_rows from = source_of(s, t, layer), to = target_of(s, t, layer);
        cca_rows_move(s->cache->backend, &to, &from, t->first, t->n);
    }
}

void cca_share_begin(cca_share *s, int64_t layer) {
    if (s->cache->spread) cca_spread_lay(s->cache->spread, layer);
    move_own(s, layer, true);
}

void cca_share_take(cca_share *s, int64_t layer, int wave, cca_matrix *q, cca_matrix *k,
                    const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n) {
    cca_rows raw = raw_rows(s, layer, wave), rows;
    cca_cache_store(s->cache, &raw, q, k, v, turn, pos, n);
    cca_cache_take(s->cache, &rows, layer, &raw, q, pos, n);
}

/* A message on the device as rows like those of an array. */
static cca_rows packed(const parcel *p, const cca_rows *like) {
    cca_rows rows = *like;
    rows.k = p->data;
    rows.v = p->data + p->k_bytes;
    rows.base = p->t.first;
    rows.capacity = p->t.n;
    return rows;
}

static void pack(cca_share *s, const parcel *p, int64_t layer) {
    cca_rows from = source_of(s, &p->t, layer);
    if (s->device) {
        cca_rows to = packed(p, &from);
        cca_rows_move(s->cache->backend, &to, &from, p->t.first, p->t.n);
    } else {
        cca_rows_get(s->cache->backend, p->data, p->data + p->k_bytes, &from, p->t.first, p->t.n);
    }
}

static void unpack(cca_share *s, const parcel *p, int64_t layer) {
    cca_rows to = target_of(s, &p->t, layer);
    if (s->device) {
        cca_rows from = packed(p, &to);
        cca_rows_move(s->cache->backend, &to, &from, p->t.first, p->t.n);
    } else {
        cca_rows_put(s->cache->backend, &to, p->data, p->data + p->k_bytes, p->t.first, p->t.n);
    }
}

static cca_status send_mail(cca_share *s, int64_t layer, wave_mail *m, cca_error *err) {
    for (int i = 0; i < m->n_out; i++) {
        if (m->out[i].packs) pack(s, &m->out[i], layer);
    }
    cca_comm *comm = s->device ? s->device : s->comm;
    if (m->n_in + m->n_out == 0) return CCA_OK;
    return cca_comm_begin(&m->exchange, comm, m->to, m->n_out, m->from, m->n_in, err);
}

cca_status cca_share_send(cca_share *s, int64_t layer, int wave, cca_error *err) {
    if (wave == 0) move_own(s, layer, false);
    return send_mail(s, layer, &s->mail[wave], err);
}

void cca_share_progress(cca_share *s) {
    for (int i = 0; i < CCA_SENDINGS; i++) cca_comm_progress(s->mail[i].exchange);
}

static cca_status receive_mail(cca_share *s, int64_t layer, wave_mail *m, cca_error *err) {
    cca_status status = cca_comm_finish(m->exchange, err);
    m->exchange = NULL;
    for (int i = 0; i < m->n_in && !status; i++) unpack(s, &m->in[i], layer);
    return status;
}

/* What the first wave has brought is passed on beside what it is looked at for; the second one's
 * slices see that, too. */
cca_status cca_share_receive(cca_share *s, int64_t layer, int wave, cca_error *err) {
    wave_mail *relay = &s->mail[CCA_RELAY];
    cca_status status = receive_mail(s, layer, &s->mail[wave], err);
    if (!status && wave == 0) status = send_mail(s, layer, relay, err);
    if (!status && wave > 0) status = receive_mail(s, layer, relay, err);
    /* Blocks of bounds that lie in several slices; whole ones alone are looked at. */
    int64_t n_groups = s->slices.end / s->cache->policy.rule.group_size;
    if (cca_cache_has(s->cache, ARRAY_BOUNDS)) {
        cca_cache_bound_blocks(s->cache, layer, 0, n_groups);
    }
    return status;
}

/* Puts the rows of a slice before `end` into the ring, as many as it has room for. */
static cca_rows fill_ring(const cca_share *s, int64_t layer, int wave, int64_t end) {
    cca_rows ring = cached(s, ARRAY_RAW, layer);
    int64_t first = cca_max(end - ring.capacity, s->rows[wave].base);
    cca_rows_move(s->cache->backend, &ring, &s->rows[wave], first, end - first);
    return ring;
}

/* A single token looks at a ring in one process, whose end cuts the keys that are read together. */
void cca_share_look(cca_share *s, int64_t layer, int wave, cca_matrix *out, const cca_matrix *q,
                    int64_t own_window, int64_t pos, int64_t n) {
    cca_rows raw = raw_rows(s, layer, wave);
    if (n == 1 && !s->cache->all_rows) raw = fill_ring(s, layer, wave, pos + 1);
    cca_rows rows = cca_cache_has(s->cache, ARRAY_ROWS) ? cached(s, ARRAY_ROWS, layer) : raw;
    cca_cache_look(s->cache, layer, out, &raw, &rows, q, own_window, pos, n);
}

void cca_share_end(cca_share *s, int64_t layer) {
    int last = s->slices.n_ranks > 1 ? 1 : 0;
    if (s->cache->spread) cca_spread_keep(s->cache->spread, layer);
    if (s->rank > 0 || s->cache->all_rows) return;
    (void)fill_ring(s, layer, last, s->slices.end);
}
