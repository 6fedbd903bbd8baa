/* Attention by dot products of bf16 pairs, for caches of bf16, q8_0 or q4_0; a part of avx512.h.
 *
 * Keys come in tiles of CCA_TILE_K. A tile is packed once for all queries of the call: keys as
 * [pair of dims][key], values as [pair of keys][dim], each pair a 32-bit word. Then ATTEND_ROWS
 * queries at a time have all their scores with the tile in registers: they become weights there,
 * which are stored as bf16 and multiplied with the values. Queries, weights and quantised rows are
 * rounded to bf16; scores, weights' sums and outputs are f32. What a query gets does not depend on
 * the queries beside it but for where its tiles of keys begin.
 *
 *                     64 keys (CCA_TILE_K)            dims, as many as head_dim
 *     pair of dims   +----+----+----+----+    pair   +----+----+----+----+
 *       0            |    |    |    |    |    of     |    |    |    |    |
 *       1            | keys, packed      |    keys   | values, packed    |
 *       …            +----+----+----+----+           +----+----+----+----+
 *                      zmm: 16 keys × 2 dims           zmm: 16 dims × 2 keys
 *
 *     6 queries      +----+----+----+----+ bf16 p    +----+----+----+----+
 *     (ATTEND_ROWS)  | s: 6 × 4 zmm, f32 | ------->  | out, in scratch   |
 *                    +----+----+----+----+ mask,     +----+----+----+----+
 *       s = q · keysᵀ, in registers        exp2      out += p · values, 6 × 4 zmm at a time
 */

enum {
    ATTEND_ROWS = 6,                     /* queries in registers */
    MOST_ROWS = 16,                      /* queries added together by anybody */
    ATTEND_VECTORS = CCA_TILE_K / WIDTH, /* of scores, for each of them */
    FEW_ROWS = 8,                        /* up to which packing keys and values does not pay */
};

/* The state of one call's queries, in scratch memory. width is head_dim, rounded up to 32; what is
 * beyond head_dim is 0. */
typedef struct bf16_attend bf16_attend;

/* Takes the packed tile of n_k keys for the call's rows first … first + n - 1. */
typedef void (*add_packed_fn)(const bf16_attend *t, int64_t first, int64_t n, int64_t n_k);

struct bf16_attend {
    const cca_attend_args *args;
    add_packed_fn add_packed;
    int64_t head_dim, width;
    int64_t head, n_heads, row, n; /* heads × queries; all of a head's queries side by side */
    uint16_t *q;                   /* [CCA_TILE_Q][width], times log2(e) / sqrt(head_dim) */
    float *out;                    /* [CCA_TILE_Q][width], not yet divided by total */
    float *total;                  /* [CCA_TILE_Q][WIDTH], to be summed over lanes */
    float *largest;                /* [CCA_TILE_Q]: score that weights are relative to */
    float *k;                      /* [width / 2][CCA_TILE_K], words */
    float *v;                      /* [CCA_TILE_K / 2][width], words */
    uint16_t *rows;                /* [CCA_TILE_K][width]: rows that are not bf16 in the cache */
    uint16_t *p;                   /* [MOST_ROWS][CCA_TILE_K] */
    uint64_t seen[CCA_TILE_Q];     /* which keys of the tile each query sees */
};

/* Lower than any score, yet finite: what is masked is -inf below it. */
static const float NO_SCORE = -1e30f;

static void bf16_begin(bf16_attend *t, const cca_attend_args *args, int64_t head, int64_t n_heads,
                       int64_t row, int64_t n, float *scratch) {
    int64_t hd = args->spans->at[0].rows.head_dim, width = (hd + 31) / 32 * 32;
    float scale = (float)(M_LOG2E / sqrt((double)hd));
    t->args = args;
    t->head_dim = hd, t->width = width;
    t->head = head, t->n_heads = n_heads, t->row = row, t->n = n;
    t->out = scratch;
    t->total = t->out + CCA_TILE_Q * width;
    t->k = t->total + CCA_TILE_Q * WIDTH;
    t->v = t->k + CCA_TILE_K * width / 2;
    t->q = (uint16_t *)(t->v + CCA_TILE_K * width / 2);
    t->rows = t->q + CCA_TILE_Q * width;
    t->p = t->rows + CCA_TILE_K * width;
    t->largest = (float *)(t->p + MOST_ROWS * CCA_TILE_K);
    int64_t n_rows = n_heads * n;
    memset(t->out, 0, (size_t)(n_rows * width) * sizeof *t->out);
    memset(t->total, 0, (size_t)(n_rows * WIDTH) * sizeof *t->total);
    for (int64_t i = 0; i < n_rows; i++) {
        t->largest[i] = NO_SCORE;
        const float *in = args->q + ((row + i % n) * args->n_heads + head + i / n) * hd;
        for (int64_t d = 0; d < width; d += WIDTH) {
            __mmask16 mask = (__mmask16)first_of(cca_max(cca_min(hd - d, WIDTH), 0));
            __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, in + d), _mm512_set1_ps(scale));
            _mm256_storeu_si256((__m256i *)(t->q + i * width + d), (__m256i)_mm512_cvtneps_pbh(x));
        }
    }
}

/* Where a head's key of a tile starts, or its value. */
typedef const void *(*key_at)(const cca_key_tile *t, const cca_rows *rows, int64_t head, int64_t k);

/* The rows of a tile of keys, or their values, as bf16: where they lie in the cache, or copied, or
 * converted. */
static const uint16_t *bf16_rows(const bf16_attend *t, uint16_t *out, int64_t *stride,
                                 cca_dtype type, key_at at, const cca_rows *rows, int64_t head,
                                 const cca_key_tile *keys) {
    float values[CCA_QUANT_BLOCK];
    *stride = t->head_dim;
    if (type == CCA_BF16 && keys->in_a_row) return (const uint16_t *)at(keys, rows, head, 0);
    *stride = t->width;
    const size_t block = type == CCA_Q8_0 ? sizeof(cca_q8_0) : sizeof(cca_q4_0);
    for (int64_t i = 0; i < keys->n; i++) {
        const char *from = at(keys, rows, head, i);
        uint16_t *to = out + i * t->width;
        if (type == CCA_BF16) {
            memcpy(to, from, (size_t)t->head_dim * sizeof *to);
            continue;
        }
        for (int64_t d = 0; d < t->head_dim; d += CCA_QUANT_BLOCK, from += block) {
            if (type == CCA_Q8_0) {
                cca_decode_q8_0(values, from, CCA_QUANT_BLOCK);
            } else {
                cca_decode_q4_0(values, from, CCA_QUANT_BLOCK);
            }
            for (int k = 0; k < CCA_QUANT_BLOCK; k++) to[d + k] = cca_f32_to_bf16(values[k]);
        }
    }
    return out;
}

/* Here and for values: what is read is followed by prefetching the same place of the next tile. */
static void bf16_pack_keys(const bf16_attend *t, const uint16_t *rows, int64_t stride,
                           int64_t n_k) {
    for (int64_t key = 0; key < n_k; key += WIDTH) {
        for (int64_t d = 0; d < t->head_dim; d += 2 * WIDTH) {
            vec v[WIDTH];
            __mmask32 mask = first_of(t->head_dim - d);
#pragma GCC unroll 16
            for (int r = 0; r < WIDTH; r++) {
                const uint16_t *from = rows + cca_min(key + r, n_k - 1) * stride + d;
                v[r] = (vec)_mm512_maskz_loadu_epi16(mask, from);
                _mm_prefetch((const char *)(from + CCA_TILE_K * stride), _MM_HINT_T0);
            }
            transpose(v);
            float *to = t->k + d / 2 * CCA_TILE_K + key;
#pragma GCC unroll 16
            for (int r = 0; r < WIDTH; r++) store(to + (int64_t)r * CCA_TILE_K, v[r]);
        }
    }
}

/* Words of a value of one row and the value below it, of the first 16 dims and of the others. */
typedef struct pair_order {
    __m512i low, high;
} pair_order;

INLINE pair_order pairs_of_rows(void) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    return (pair_order){low, _mm512_add_epi16(low, _mm512_set1_epi16(16))};
}

static void bf16_pack_values(const bf16_attend *t, const uint16_t *rows, int64_t stride,
                             int64_t n_k) {
    const pair_order order = pairs_of_rows();
    for (int64_t key = 0; key < n_k; key += 2) {
        const uint16_t *from = rows + key * stride;
        float *to = t->v + key / 2 * t->width;
        for (int64_t d = 0; d < t->head_dim; d += 32) {
            __mmask32 mask = first_of(t->head_dim - d), both = key + 1 < n_k ? mask : 0;
            __m512i a = _mm512_maskz_loadu_epi16(mask, from + d);
            __m512i b = _mm512_maskz_loadu_epi16(both, from + stride + d);
            _mm_prefetch((const char *)(from + CCA_TILE_K * stride + d), _MM_HINT_T0);
            _mm_prefetch((const char *)(from + (CCA_TILE_K + 1) * stride + d), _MM_HINT_T0);
            _mm512_storeu_si512(to + d, _mm512_permutex2var_epi16(a, order.low, b));
            _mm512_storeu_si512(to + d + WIDTH, _mm512_permutex2var_epi16(a, order.high, b));
        }
    }
}

/* 2^x for x ≤ 0, to about 3e-06: a polynomial in x - floor(x), and floor(x) put into the exponent.
 * -inf gives 0. The coefficients interpolate 2^f at the Chebyshev nodes of [0, 1]. */
INLINE __m512 exp2_of(__m512 x) {
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0.013670309f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.051744998f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24160436f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6929729f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0000035f));
    return _mm512_scalef_ps(p, x);
}

/* A larger score than those before: what was summed up is brought to the new scale. */
static void bf16_rescale(const bf16_attend *t, int64_t row, float largest) {
    __m512 shrink = exp2_of(_mm512_set1_ps(t->largest[row] - largest));
    float *out = t->out + row * t->width, *total = t->total + row * WIDTH;
    for (int64_t d = 0; d < t->width; d += WIDTH) store(out + d, load(out + d) * (vec)shrink);
    store(total, load(total) * (vec)shrink);
    t->largest[row] = largest;
}

/* Scores of one row with the tile's keys become its weights in t->p. */
INLINE void bf16_softmax(const bf16_attend *t, int64_t row, int i, __m512 *s) {
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    uint64_t seen = t->seen[row];
#pragma GCC unroll 4
    for (int v = 0; v < ATTEND_VECTORS; v++) {
        s[v] = _mm512_mask_mov_ps(nothing, (__mmask16)(seen >> (v * WIDTH)), s[v]);
    }
    __m512 most = _mm512_max_ps(_mm512_max_ps(s[0], s[1]), _mm512_max_ps(s[2], s[3]));
    if (_mm512_cmp_ps_mask(most, _mm512_set1_ps(t->largest[row]), _CMP_GT_OQ)) {
        bf16_rescale(t, row, _mm512_reduce_max_ps(most));
    }
    const __m512 largest = _mm512_set1_ps(t->largest[row]);
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    __m512 total = _mm512_loadu_ps(t->total + row * WIDTH);
#pragma GCC unroll 2
    for (int v = 0; v < ATTEND_VECTORS; v += 2) {
        __m512 low = exp2_of(_mm512_sub_ps(s[v], largest));
        __m512 high = exp2_of(_mm512_sub_ps(s[v + 1], largest));
        __m512bh p = _mm512_cvtne2ps_pbh(high, low);
        total = _mm512_dpbf16_ps(total, p, ones);
        _mm512_storeu_si512(t->p + i * CCA_TILE_K + v * WIDTH, (__m512i)p);
    }
    _mm512_storeu_ps(t->total + row * WIDTH, total);
}

/* out of n_i rows += weights × values, n_v vectors of dims from d on. */
INLINE void bf16_weigh(const bf16_attend *t, int64_t row, const int n_i, int64_t d, const int n_v,
                       int64_t n_k) {
    __m512 sum[ATTEND_ROWS][4];
    float *out = t->out + row * t->width + d;
#pragma GCC unroll 6
    for (int i = 0; i < n_i; i++) {
#pragma GCC unroll 4
        for (int c = 0; c < n_v; c++) {
            sum[i][c] = _mm512_loadu_ps(out + i * t->width + (int64_t)c * WIDTH);
        }
    }
    for (int64_t k = 0; k < (n_k + 1) / 2; k++) {
        __m512bh v[4];
#pragma GCC unroll 4
        for (int c = 0; c < n_v; c++) {
            v[c] = (__m512bh)_mm512_loadu_ps(t->v + k * t->width + d + (int64_t)c * WIDTH);
        }
#pragma GCC unroll 6
        for (int i = 0; i < n_i; i++) {
            __m512bh p = (__m512bh)word_of(t->p + (int64_t)i * CCA_TILE_K, k);
#pragma GCC unroll 4
            for (int c = 0; c < n_v; c++) sum[i][c] = _mm512_dpbf16_ps(sum[i][c], p, v[c]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n_i; i++) {
#pragma GCC unroll 4
        for (int c = 0; c < n_v; c++) {
            _mm512_storeu_ps(out + i * t->width + (int64_t)c * WIDTH, sum[i][c]);
        }
    }
}

/* The packed tile of n_k keys for n_i rows. */
INLINE void bf16_add_rows(const bf16_attend *t, int64_t row, const int n_i, int64_t n_k) {
    __m512 s[ATTEND_ROWS][ATTEND_VECTORS];
    const uint16_t *q = t->q + row * t->width;
#pragma GCC unroll 6
    for (int i = 0; i < n_i; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < ATTEND_VECTORS; v++) s[i][v] = _mm512_setzero_ps();
    }
    for (int64_t w = 0; w < t->head_dim / 2; w++) {
        __m512bh k[ATTEND_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < ATTEND_VECTORS; v++) {
            k[v] = (__m512bh)_mm512_loadu_ps(t->k + w * CCA_TILE_K + (int64_t)v * WIDTH);
        }
#pragma GCC unroll 6
        for (int i = 0; i < n_i; i++) {
            __m512bh pair = (__m512bh)word_of(q + i * t->width, w);
#pragma GCC unroll 4
            for (int v = 0; v < ATTEND_VECTORS; v++) {
                s[i][v] = _mm512_dpbf16_ps(s[i][v], pair, k[v]);
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n_i; i++) bf16_softmax(t, row + i, i, s[i]);
    int64_t d = 0;
    for (; d + 4 * WIDTH <= t->width; d += 4 * WIDTH) bf16_weigh(t, row, n_i, d, 4, n_k);
    if (d < t->width) bf16_weigh(t, row, n_i, d, 2, n_k);
}

/* Whether any of n rows sees a key of the tile. */
INLINE bool bf16_any_sees(const bf16_attend *t, int64_t row, int64_t n) {
    uint64_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= t->seen[row + i];
    return any != 0;
}

static inline void bf16_add_packed(const bf16_attend *t, int64_t first, int64_t n, int64_t n_k) {
    for (int64_t i = first, some; i < first + n; i += some) {
        some = first + n - i >= ATTEND_ROWS ? ATTEND_ROWS : 1;
        if (!bf16_any_sees(t, i, some)) continue;
        if (some == ATTEND_ROWS) {
            bf16_add_rows(t, i, ATTEND_ROWS, n_k);
        } else {
            bf16_add_rows(t, i, 1, n_k);
        }
    }
}

/* Values of a row from dim d on; what is beyond head_dim is 0. */
INLINE __m512i bf16_dims(const bf16_attend *t, const uint16_t *row, int64_t d) {
    if (d + 32 <= t->head_dim) return _mm512_loadu_si512(row + d);
    return _mm512_maskz_loadu_epi16(first_of(t->head_dim - d), row + d);
}

/* Scores of one row with WIDTH keys from `key` on, as they lie. */
INLINE __m512 bf16_score(const bf16_attend *t, int64_t row, const uint16_t *keys, int64_t stride,
                         int64_t key, int64_t n_k) {
    vec sum[WIDTH] = {0};
    const uint16_t *q = t->q + row * t->width;
    for (int64_t d = 0; d < t->head_dim; d += 32) {
        const __m512bh pairs = (__m512bh)_mm512_loadu_si512(q + d);
#pragma GCC unroll 16
        for (int r = 0; r < WIDTH; r++) {
            const uint16_t *from = keys + cca_min(key + r, n_k - 1) * stride;
            sum[r] = (vec)_mm512_dpbf16_ps((__m512)sum[r], pairs, (__m512bh)bf16_dims(t, from, d));
            _mm_prefetch((const char *)(from + CCA_TILE_K * stride + d), _MM_HINT_T0);
        }
    }
    return (__m512)sum_each(sum);
}

/* out of one row += weights × values as they lie, 64 dims from d on; even and odd pairs of keys
 * are summed up apart, so that fewer sums wait for themselves. */
INLINE void bf16_weigh_lying(const bf16_attend *t, int64_t row, const uint16_t *values,
                             int64_t stride, int64_t d, int64_t n_k) {
    const pair_order order = pairs_of_rows();
    __m512 sum[2][4];
    float *out = t->out + row * t->width + d;
    const int n_v = d + 32 < t->width ? 4 : 2;
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        sum[0][c] = c < n_v ? _mm512_loadu_ps(out + (int64_t)c * WIDTH) : _mm512_setzero_ps();
        sum[1][c] = _mm512_setzero_ps();
    }
    for (int64_t key = 0; key < n_k; key += 4) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const int64_t at = key + 2 * h;
            const uint16_t *a = values + cca_min(at, n_k - 1) * stride;
            const uint16_t *b = values + cca_min(at + 1, n_k - 1) * stride;
            const __m512bh p = (__m512bh)word_of(t->p, at / 2);
#pragma GCC unroll 2
            for (int c = 0; c < n_v; c += 2) {
                const __m512i x = bf16_dims(t, a, d + (int64_t)c * WIDTH);
                const __m512i y = bf16_dims(t, b, d + (int64_t)c * WIDTH);
                sum[h][c] = _mm512_dpbf16_ps(sum[h][c], p,
                                             (__m512bh)_mm512_permutex2var_epi16(x, order.low, y));
                sum[h][c + 1] = _mm512_dpbf16_ps(
                    sum[h][c + 1], p, (__m512bh)_mm512_permutex2var_epi16(x, order.high, y));
                _mm_prefetch((const char *)(a + CCA_TILE_K * stride + d + (int64_t)c * WIDTH),
                             _MM_HINT_T0);
                _mm_prefetch((const char *)(b + CCA_TILE_K * stride + d + (int64_t)c * WIDTH),
                             _MM_HINT_T0);
            }
        }
    }
    for (int c = 0; c < n_v; c++) {
        _mm512_storeu_ps(out + (int64_t)c * WIDTH, _mm512_add_ps(sum[0][c], sum[1][c]));
    }
}

/* The tile of n_k keys for one row, from where they lie: packing pays for many rows only. */
static void bf16_add_row(const bf16_attend *t, int64_t row, const uint16_t *keys,
                         const uint16_t *values, const int64_t stride[2], int64_t n_k) {
    __m512 s[ATTEND_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < ATTEND_VECTORS; v++) {
        s[v] = _mm512_setzero_ps();
        if (v * WIDTH < n_k) s[v] = bf16_score(t, row, keys, stride[0], (int64_t)v * WIDTH, n_k);
    }
    bf16_softmax(t, row, 0, s);
    for (int64_t d = 0; d < t->width; d += 64) {
        bf16_weigh_lying(t, row, values, stride[1], d, n_k);
    }
}

/* Takes a tile of keys for the call's rows first … first + n - 1. */
static void bf16_add(bf16_attend *t, const cca_rows *rows, const cca_key_tile *keys, int64_t first,
                     int64_t n) {
    int64_t stride[2], n_k = keys->n;
    int64_t head = (t->head + first / t->n) / (t->args->n_heads / rows->heads);
    const uint16_t *k =
        bf16_rows(t, t->rows, &stride[0], rows->k_type, cca_key_at, rows, head, keys);
    const bool few = n <= FEW_ROWS;
    if (!few) bf16_pack_keys(t, k, stride[0], n_k);
    const uint16_t *v = bf16_rows(t, few ? (uint16_t *)t->v : t->rows, &stride[1], rows->v_type,
                                  cca_value_at, rows, head, keys);
    if (!few) bf16_pack_values(t, v, stride[1], n_k);
    if (!few) t->add_packed(t, first, n, n_k);
    for (int64_t i = first; few && i < first + n; i++) {
        if (t->seen[i]) bf16_add_row(t, i, k, v, stride, n_k);
    }
}

/* Bits begin … end - 1, both cut to 0 … 64. */
static uint64_t bits_between(int64_t begin, int64_t end) {
    if (begin < 0) begin = 0;
    if (end > 64) end = 64;
    return begin >= end ? 0 : (~UINT64_C(0) >> (64 - (end - begin))) << begin;
}

static void bf16_finish(const bf16_attend *t) {
    for (int64_t i = 0; i < t->n_heads * t->n; i++) {
        int64_t row = t->row + i % t->n, head = t->head + i / t->n;
        float *out = t->args->out + (row * t->args->n_heads + head) * t->head_dim;
        float total = sum_lanes(load(t->total + i * WIDTH));
        float inverse = cca_attend_finish(t->args, row, head, t->largest[i] * (float)M_LN2, total);
        for (int64_t d = 0; d < t->head_dim; d++) out[d] = t->out[i * t->width + d] * inverse;
    }
}

/* The keys of a tile that lie in columns begin … end - 1, as bits. */
static uint64_t bits_of_columns(const cca_key_tile *keys, int64_t begin, int64_t end) {
    int64_t first = 0, last = keys->n;
    if (keys->in_a_row) {
        first = begin - keys->first_column;
        last = cca_min(end - keys->first_column, last);
    } else {
        while (first < last && keys->column[first] < begin) first++;
        while (last > first && keys->column[last - 1] >= end) last--;
    }
    return bits_between(first, last) & keys->takes_part;
}

/* Rows of queries that read the same head of a span's rows take its keys together. */
static void bf16_span(bf16_attend *t, const cca_span *span) {
    const cca_rows *rows = &span->rows;
    int64_t pos = t->args->pos + t->row, n_rows = t->n_heads * t->n;
    int64_t together = rows->heads == t->args->n_heads ? t->n : n_rows;
    int64_t kv_head = t->head / (t->args->n_heads / t->args->spans->at[0].rows.heads);
    int64_t begin[CCA_TILE_Q], end[CCA_TILE_Q];
    for (int64_t i = 0; i < n_rows; i++) {
        begin[i] = cca_edge_at(&span->seen.begin, pos + i % t->n);
        end[i] = cca_edge_at(&span->seen.end, pos + i % t->n);
    }
    cca_key_walk w = cca_walk_begin(t->args, span, kv_head, t->row, t->n);
    while (cca_walk_next(&w)) {
        for (int64_t i = 0; i < n_rows; i++) {
            t->seen[i] = bits_of_columns(&w.keys, begin[i], end[i]);
        }
        for (int64_t i = 0; i < n_rows; i += together) bf16_add(t, rows, &w.keys, i, together);
    }
}

static void bf16_attention(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                           int64_t n, float *scratch, add_packed_fn add_packed) {
    bf16_attend t = {.add_packed = add_packed};
    bf16_begin(&t, args, head, n_heads, row, n, scratch);
    for (int i = 0; i < args->spans->n; i++) bf16_span(&t, &args->spans->at[i]);
    bf16_finish(&t);
}
