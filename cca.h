/* CCA-Attention: the policy and its cache.
 *
 *     cca_cache_shape shape = {.n_layers = 32, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128,
 *                              .ctx_size = 131072, .chunk_size = 512,
 *                              .k_type = CCA_BF16, .v_type = CCA_BF16};
 *     cca_policy_options o = {.attn = CCA_ATTN_CCA, .group_size = 16, .window_size = 1024,
 *                             .n_sinks = 16, .recall = 2048, .tile = 16};
 *     cca_policy policy;
 *     cca_policy_make(&policy, &o, &err);
 *     cca_cache *cache;
 *     cca_cache_new(&cache, backend, &shape, &policy, &err);
 *     cca_cache_attend(cache, layer, &out, &q, &k, &v, &turn, 0, pos, n); // for each layer
 *     cca_cache_free(cache);
 *
 * Per layer the cache holds the core tokens [n_heads][ctx / g][head_dim], a window of raw rows
 * [n_kv_heads][s + g][head_dim], a ring: older raw rows are gone, and the sinks' rows beside it
 * (longer by what a draft may take back).
 * Where everything fits the window (full attention, or a short context) raw rows are append-only
 * and there is nothing else. With recall they are append-only, too, and each group has bounds
 * [n_kv_heads][ctx / g][head_dim]: its largest and its smallest key, elementwise. A core is pooled
 * the moment its group is complete, since its only query is there then; when it becomes visible is
 * decided by cca_rule alone. */
#ifndef CCA_CCA_H
#define CCA_CCA_H

#include "backend/backend.h"
#include "store.h"

typedef enum cca_attn {
    CCA_ATTN_CCA, /* with cores, sinks and recall as the options say */
    CCA_ATTN_FULL,
    CCA_ATTN_MEAN,
    CCA_ATTN_MAX,
    CCA_ATTN_WINDOW,
    CCA_ATTN_SINKS,
} cca_attn;

typedef struct cca_policy_options {
    cca_attn attn;
    int64_t group_size, window_size;
    int64_t n_sinks; /* first tokens that stay raw */
    int64_t recall;  /* raw tokens that a tile of queries recalls; 0: none */
    int64_t tile;    /* queries that choose together, a power of two; 0: 1 */
    bool no_cores;   /* what is not recalled is not seen */
} cca_policy_options;

typedef struct cca_policy {
    cca_attn attn;
    cca_rule rule;
    cca_pooling pooling;
    int64_t recall, tile; /* 0, 1: no recall */
    int64_t levels_from;  /* groups from which on blocks are weighed first (keys.h) */
} cca_policy;

/* CCA_USAGE unless 1 ≤ g ≤ s, s and recall are multiples of g, so are the sinks but for
 * CCA_ATTN_SINKS, which wants one at least, and the tile is a power of two. Kinds other than
 * CCA_ATTN_CCA take no sinks (but CCA_ATTN_SINKS), recall or tile. */
cca_status cca_policy_make(cca_policy *out, const cca_policy_options *options, cca_error *err);
/* Queries of n_heads over n_kv_heads that choose together where nobody says otherwise: the largest
 * power of two with 64 rows at most. */
int64_t cca_policy_tile(int64_t n_heads, int64_t n_kv_heads);

typedef struct cca_cache_shape {
    int64_t n_layers, n_heads, n_kv_heads, head_dim;
    int64_t ctx_size;   /* positions 0 … ctx_size - 1 */
    int64_t chunk_size; /* most tokens in one call of cca_cache_attend */
    cca_dtype k_type, v_type;
    bool rows_apart; /* groups behind the window, which are recalled, have rows in types of their
                        own: */
    cca_dtype row_k_type, row_v_type;
    bool rows_on_host; /* they lie in memory of the host, apart, also in the window's types */
    bool rows_near;    /* from there, and in types that are read slowly, they are brought into the
                          backend's own memory as they are wanted (near_rows.h) */
    int64_t draft;     /* rows that a call of cca_cache_draft may add and take back */
    bool mark;         /* with room for cca_cache_mark */
    bool spread;       /* what grows with the text has room for a single layer, in which all are
                          read in turn: ranks keep it together (cca_spread.h) */
    bool stored; /* laid out for any length, so that a stored state fits contexts of all sizes */
    const char *rows_folder; /* NULL: rows that are recalled lie in memory; else in a file without
                                a name in this folder (disk_rows.h). Borrowed until the cache is
                                made */
    size_t most_resident; /* bytes of the process in memory from which on mapped rows are taken out
                             of it; 0: the system sees to it */
} cca_cache_shape;

/* Bytes of a cache, by class. */
typedef struct cca_cache_size {
    size_t cores;   /* all layers */
    size_t bounds;  /* of groups that can be recalled, all layers */
    size_t rows;    /* of all positions, where groups can be recalled, all layers: in memory, */
    size_t disk;    /* or on disk, */
    size_t host;    /* or in memory of the host that is not the backend's own */
    size_t window;  /* raw rows and sinks, where not all rows are kept alike, all layers */
    size_t scratch; /* window and chunk side by side, one layer; what tiles have chosen, and rows
                       that are brought near */
    size_t mark;    /* a copy of the raw rows that a mark keeps */
} cca_cache_size;

/* CCA_NO_MEMORY where the sizes overflow, CCA_USAGE where head_dim does not suit a type. */
cca_status cca_cache_measure(cca_cache_size *out, const cca_cache_shape *shape,
                             const cca_policy *policy, cca_error *err);

typedef struct cca_cache cca_cache;

/* Allocates exactly what cca_cache_measure says, in the backend's memory, in the host's, and on
 * disk, where it is not taken before rows come: CCA_BAD_OUTPUT names the folder. The backend must
 * outlive the cache.
 */
cca_status cca_cache_new(cca_cache **out, cca_backend *backend, const cca_cache_shape *shape,
                         const cca_policy *policy, cca_error *err);
void cca_cache_free(cca_cache *cache);

/* One layer's attention of n tokens at positions pos … pos + n - 1, which must follow what is
 * stored: rotates q in place and k, stores k and v, pools the groups that became complete, attends.
 * q, out: (n, n_heads * head_dim); k, v: (n, n_kv_heads * head_dim). k is undefined afterwards.
 * turn NULL: q and k are rotated already, and stay. own_window: of full attention only so many last
 * tokens are seen, as the layer was trained; 0: all. n ≤ chunk_size. */
void cca_cache_attend(cca_cache *cache, int64_t layer, cca_matrix *out, cca_matrix *q,
                      cca_matrix *k, const cca_matrix *v, const cca_turn *turn, int64_t own_window,
                      int64_t pos, int64_t n);

/* From now on each query of a call chooses for itself what it recalls (as generated tokens do), or
 * tiles of them together again. */
void cca_cache_choose_alone(cca_cache *cache, bool alone);

/* From now on a call is a draft of at most 1 + shape.draft tokens, or no draft again: each of its
 * queries chooses for itself, and the next call may begin at any position behind its first token.
 * What stood there then is as if it had never been: the ring has not yet lost what a query or a
 * stored state of such a position needs, and groups, bounds and sinks are made again before anybody
 * sees them, since a group is seen no sooner than s tokens behind its last one. */
void cca_cache_draft(cca_cache *cache, bool draft);

/* From now on cca_cache_attend adds to the sums what the last n of its tokens attend to, in each
 * layer: sums is [n][n_layers][n_heads][n_slots] (borrowed), unit cca_cache_unit's. NULL ends it.
 */
void cca_cache_watch(cca_cache *cache, const cca_mass *mass, int64_t n);
/* Positions that a sum can tell apart: a group, or 16 where tokens are not grouped. */
int64_t cca_cache_unit(const cca_policy *policy);

/* Keeps what storing more than the n_tokens stored now would lose: the ring's raw rows. Cores,
 * sinks and an append-only window need no copy. One mark at a time; CCA_USAGE in a cache without
 * room for it. */
cca_status cca_cache_mark(cca_cache *cache, int64_t n_tokens, cca_error *err);
/* Back to the state at the mark, made with the same n_tokens; any number of times, also after an
 * interruption. */
cca_status cca_cache_rewind(cca_cache *cache, int64_t n_tokens, cca_error *err);

/* What a stored state is made of. What a longer state keeps, numbered from 0: raw rows, with the
 * bounds and cores of the groups that they complete, where all raw rows are kept alike; else groups
 * (their rows, bounds and cores, as far as there are any), or sinks where there are none. And the
 * window's rows, numbered by position, with the sinks beside them. */
typedef enum cca_part { CCA_PART_KEPT, CCA_PART_WINDOW } cca_part;

/* Rows of a part in a state of n_tokens: kept ones 0 … n - 1, window ones n_tokens - n …. */
int64_t cca_cache_part_rows(const cca_cache *cache, cca_part part, int64_t n_tokens);
/* Bytes of rows first … first + n - 1 of a part and what comes with them, in one layer. */
size_t cca_cache_part_bytes(const cca_cache *cache, cca_part part, int64_t first, int64_t n);
int64_t cca_cache_n_layers(const cca_cache *cache);
/* Copies them to host memory and back, one kind behind the other, keys before values, each
 * [heads][n][head_dim]. The next cca_backend_sync reports failures. */
void cca_cache_get(const cca_cache *cache, cca_part part, int64_t layer, int64_t first, int64_t n,
                   void *out);
void cca_cache_put(cca_cache *cache, cca_part part, int64_t layer, int64_t first, int64_t n,
                   const void *in);
/* Whether none of the numbers that cca_cache_get has copied of one layer is infinite or none. */
bool cca_cache_all_finite(const cca_cache *cache, cca_part part, int64_t first, int64_t n,
                          const void *in);
/* Kept rows first … first + n - 1 are read from now on where a file has what cca_cache_get gives of
 * all layers, at data in a view that cca_cache_view took over, as long as the state is not behind
 * them. Of what follows them in the part nothing is. False, and nothing happens, unless rows lie on
 * disk, follow those lent before (cca_cache_lent, from 0), and can be read where they lie.
 * cca_cache_put leaves out rows that are lent. */
bool cca_cache_view(cca_cache *cache, const cca_store_view *view);
bool cca_cache_lend(cca_cache *cache, int64_t first, int64_t n, const void *data);
int64_t cca_cache_lent(const cca_cache *cache);
/* Nothing is lent any more, and no state stored: one will be put. */
void cca_cache_empty(cca_cache *cache);

/* Gives rows × cols values of a type, to be freed; NULL where there is no memory. */
typedef void *(*cca_rows_fn)(void *user, cca_dtype type, int64_t rows, int64_t cols);
/* Fills a state of n_tokens with such rows: what reading it costs does not depend on them. */
void cca_cache_fill(cca_cache *cache, int64_t n_tokens, cca_rows_fn make, void *user);
cca_status cca_cache_sync(const cca_cache *cache, cca_error *err);

/* Bytes in use when n_tokens are stored (capacity aside): what progress lines show. */
size_t cca_cache_used(const cca_cache *cache, int64_t n_tokens);

#endif
