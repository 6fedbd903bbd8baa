/* Which groups one query recalls, as a step of a token: some blocks take a head of keys, with up to
 * eight query heads that share it. Each of them has a run of a level's columns, and hands over what
 * the others want of it:
 *
 *     scores of its columns       bounds as they lie, into registers; mma.sync 16 × 8
 *     largest, sum of each row    -> all blocks: a row's softmax
 *     weights, largest first      -> all blocks: how many come before one of them; the first `most`
 *     which columns these are     -> all blocks: the list of them, in its order
 *
 * A product adds up dims in the order in which lanes read them, 16 bytes at a time: which order
 * that is does not matter as long as queries have the same. They come in two terms, which together
 * are as good as f32. */
#ifndef CCA_CUDA_TOKEN_CHOOSE_CUH
#define CCA_CUDA_TOKEN_CHOOSE_CUH

#include "backend/cuda/choose.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/sealed.cuh"
#include "backend/cuda/token_stream.cuh"

enum {
    CHOICE_ROWS = 8,     /* most query heads that share keys */
    CHOICE_COLUMNS = 16, /* of a warp at a time */
    CHOICE_TERMS = 2,
    MOST_SHARING = 8, /* blocks of a head */
};

/* A block's memory, and its part in a head's choice. */
struct choice_room {
    uint4 *queries;    /* [terms][positive, negative][dims in 32s][lanes], as products want them */
    float *scores;     /* [rows][share], of its columns */
    uint32_t *weights; /* [share], as keys that have their order; in the first row's place */
    int32_t *places;   /* [share] of its columns among these, the largest being 0 */
    uint32_t *sorted;  /* weights of all columns, each block's with the largest first */
    int32_t *blocks;   /* that are looked into */
    int share;         /* columns of a block, at most */
    int rank;          /* among the head's blocks */
    uint64_t *handed;  /* from block to block, in a level */
    unsigned seal;
};

/* A block's columns of a level: first … first + n - 1 of these; `each` of those before it. */
struct own_columns {
    int each, first, n;
};

static __device__ __forceinline__ own_columns columns_of(const choice_level &l, int rank,
                                                         int sharing) {
    enum { SOME = CHOICE_COLUMNS };
    int each = (l.n + SOME * sharing - 1) / (SOME * sharing) * SOME, first = rank * each;
    int rest = l.n - first < each ? l.n - first : each;
    return own_columns{each, first, rest > 0 ? rest : 0};
}

static __host__ __device__ __forceinline__ int64_t choice_query_bytes(int64_t head_dim) {
    return CHOICE_TERMS * 2 * (head_dim / 32) * CUDA_WARP * (int64_t)sizeof(uint4);
}

/* Of a block: queries; scores, and places, of its columns; sorted weights of all; the blocks. */
static inline int64_t choice_memory(int64_t head_dim, int64_t n_rows, int64_t n_columns,
                                    int64_t sharing, int64_t most_blocks) {
    int64_t words = (n_rows + 1) * (n_columns / sharing) + n_columns + most_blocks;
    return choice_query_bytes(head_dim) + words * (int64_t)sizeof(float);
}

/* ---- scores -------------------------------------------------------------------------- */

/* A warp's share of the head's queries, into memory: a lane's are eight dims of a row. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void read_choice_queries(const choice_room &m,
                                                           const choose_step &s, int head) {
    enum { CHUNKS = HD / 32 };
    int lane = (int)(threadIdx.x % CUDA_WARP), row = lane / 4;
    const float unit = cuda_score_unit<HD>();
    for (int i = (int)(threadIdx.x / CUDA_WARP); i < CHUNKS; i += WARPS) {
        __align__(16) float x[8] = {};
        if (row < s.sharers) {
            const float *q = s.q + (head * s.sharers + row) * HD;
            if (s.turns) {
                rotate_eight<HD>(x, q, s.turn.angles, i * 4 + lane % 4, s.turn.interleaved);
            } else {
                read_eight(x, q + i * 32 + lane % 4 * 8);
            }
        }
        uint32_t words[CHOICE_TERMS][2][4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float up[2], under[2];
            part_by_sign(up, under, x[2 * k] * unit, x[2 * k + 1] * unit);
#pragma unroll
            for (int term = 0; term < CHOICE_TERMS; term++) {
                words[term][0][k] = take_term<is_bf16>(up);
                words[term][1][k] = take_term<is_bf16>(under);
            }
        }
#pragma unroll
        for (int term = 0; term < CHOICE_TERMS; term++) {
#pragma unroll
            for (int side = 0; side < 2; side++) {
                const uint32_t *w = words[term][side];
                m.queries[((term * 2 + side) * CHUNKS + i) * CUDA_WARP + lane] =
                    make_uint4(w[0], w[1], w[2], w[3]);
            }
        }
    }
}

/* Scores of the columns from `at` on among the block's own, in two eights. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void score_columns(const choice_room &m, const choose_step &s,
                                                     const choice_level &l, int head, int first,
                                                     int at) {
    enum { CHUNKS = HD / 32, EIGHTS = CHOICE_COLUMNS / 8 };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    const choice_bounds &b = s.bounds[l.of_blocks];
    uint4 w[EIGHTS][2][CHUNKS];
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
        int column = first + at + e * 8 + lane / 4; /* behind the last one comes it again */
        int64_t row = (int64_t)head * b.capacity + column_id(l, column < l.n ? column : l.n - 1);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            int64_t vector = row * (HD / 8) + i * 4 + lane % 4;
            w[e][0][i] = __ldcg(b.high + vector);
            w[e][1][i] = __ldcg(b.low + vector);
        }
    }
    float sums[EIGHTS][2][4] = {};
#pragma unroll
    for (int side = 0; side < 2; side++) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const uint4 *q = m.queries + (side * CHUNKS + i) * CUDA_WARP + lane;
            const uint4 x = q[0], rest = q[2 * CHUNKS * CUDA_WARP];
            const uint32_t low[4] = {x.x, rest.x, x.y, rest.y};
            const uint32_t high[4] = {x.z, rest.z, x.w, rest.w};
#pragma unroll
            for (int e = 0; e < EIGHTS; e++) {
                const uint4 v = w[e][side][i];
                mma_multiply<is_bf16>(sums[e][0], low, v.x, v.y);
                mma_multiply<is_bf16>(sums[e][1], high, v.z, v.w);
            }
        }
    }
    if (lane / 4 >= s.sharers) return;
    float *to = m.scores + lane / 4 * m.share + at + lane % 4 * 2;
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
        const float *a = sums[e][0], *c = sums[e][1];
        to[e * 8] = a[0] + a[2] + (c[0] + c[2]);
        to[e * 8 + 1] = a[1] + a[3] + (c[1] + c[3]);
    }
}

/* ---- from block to block ------------------------------------------------------------- */

/* n values of all blocks, as they come, into memory. */
static __device__ __forceinline__ void gather(uint32_t *to, const uint64_t *from, int n,
                                              unsigned seal) {
    enum { EACH = 4 };
    for (int first = (int)threadIdx.x; first < n; first += EACH * THREADS) {
        uint32_t x[EACH];
        for (bool there = false; !there;) {
            there = true;
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                int i = first + k * THREADS;
                if (i < n) there = sealed_get(&x[k], from + i, seal) && there;
            }
        }
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            if (first + k * THREADS < n) to[first + k * THREADS] = x[k];
        }
    }
    sync_workers();
}

/* ---- weights ------------------------------------------------------------------------- */

/* A row's scores among all columns, or some: the largest, and the sum of weights beside it. */
struct row_sums {
    float largest, sum;
};

static __device__ __forceinline__ void join_sums(row_sums &a, row_sums b) {
    float largest = fmaxf(a.largest, b.largest);
    a.sum = a.sum * weight_of(a.largest, largest) + b.sum * weight_of(b.largest, largest);
    a.largest = largest;
}

/* Rows' sums of the block's columns, but the first `skip`, joined with those of all others: the
 * largest score, and 1 / sum. */
static __device__ __forceinline__ void sum_rows(row_sums all[CHOICE_ROWS], const choice_room &m,
                                                const choose_step &s, int n, int skip) {
    __shared__ row_sums parts[WARPS], gathered[MOST_SHARING * CHOICE_ROWS];
    int warp = (int)(threadIdx.x / CUDA_WARP), lane = (int)(threadIdx.x % CUDA_WARP);
    int row = warp % s.sharers, step = (WARPS - row + s.sharers - 1) / s.sharers * CUDA_WARP;
    int first = skip + warp / s.sharers * CUDA_WARP + lane;
    const float *x = m.scores + row * m.share;
    row_sums own = {-INFINITY, 0};
#pragma unroll 4
    for (int i = first; i < n; i += step) own.largest = fmaxf(own.largest, x[i]);
    own.largest = cuda_warp_max(own.largest);
#pragma unroll 4
    for (int i = first; i < n; i += step) own.sum += weight_of(x[i], own.largest);
    own.sum = cuda_warp_sum(own.sum);
    if (lane == 0) parts[warp] = own;
    sync_workers();
    row = (int)threadIdx.x;
    if (row < s.sharers) {
        own = parts[row];
        for (int i = row + s.sharers; i < WARPS; i += s.sharers) join_sums(own, parts[i]);
        uint64_t *to = m.handed + (m.rank * s.sharers + row) * 2;
        sealed_put(to, own.largest, m.seal);
        sealed_put(to + 1, own.sum, m.seal);
    }
    gather((uint32_t *)gathered, m.handed, s.sharing * s.sharers * 2, m.seal);
    if (row < s.sharers) {
        own = gathered[row];
        for (int i = 1; i < s.sharing; i++) join_sums(own, gathered[i * s.sharers + row]);
        all[row] = row_sums{own.largest, own.sum == 0 ? 0 : 1 / own.sum};
    }
    sync_workers();
}

/* A score as a key that has its order: a row's weights have that of its scores. NaN comes first. */
static __device__ __forceinline__ uint32_t score_key(float score) {
    uint32_t bits = __float_as_uint(isnan(score) ? NAN : score);
    uint32_t key = (int32_t)bits < 0 ? ~bits : bits | 0x80000000;
    return key > 0 ? key : 1;
}

/* Puts the weights of the block's columns into memory, or scores where there is one row; columns
 * before `skip` of the level may not be chosen. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void weigh(const choice_room &m, const choose_step &s,
                                             const choice_level &l, own_columns own, int head) {
    __shared__ row_sums rows[CHOICE_ROWS];
    int warp = (int)(threadIdx.x / CUDA_WARP), skip = 0;
    for (int i = warp * CHOICE_COLUMNS; i < own.n; i += WARPS * CHOICE_COLUMNS) {
        score_columns<HD, is_bf16>(m, s, l, head, own.first, i);
    }
    while (l.listed && skip < CCA_BLOCK && column_id(l, skip) < s.first) skip++;
    skip = skip > own.first ? skip - own.first : 0;
    sync_workers();
    if (s.sharers > 1) sum_rows(rows, m, s, own.n, skip);
    for (int i = (int)threadIdx.x; i < own.each; i += THREADS) {
        float weight = 0;
        for (int r = 0; r < s.sharers && s.sharers > 1; r++) {
            weight += weight_of(m.scores[r * m.share + i], rows[r].largest) * rows[r].sum;
        }
        uint32_t key = s.sharers > 1 ? weight_key(weight) : score_key(m.scores[i]);
        m.weights[i] = i < skip || i >= own.n ? 0 : key;
    }
    sync_workers();
}

/* ---- the largest --------------------------------------------------------------------- */

/* How many of weights begin … end - 1, of which whole fours are there, are larger than one; or
 * equal, too. */
template <bool or_equal>
static __device__ __forceinline__ int count_larger(const uint32_t *weights, int begin, int end,
                                                   uint32_t own) {
    int n = 0;
#pragma unroll 4
    for (int i = begin; i < end; i += 4) {
        uint4 w = *(const uint4 *)(weights + i);
        n += or_equal ? (w.x >= own) + (w.y >= own) + (w.z >= own) + (w.w >= own)
                      : (w.x > own) + (w.y > own) + (w.z > own) + (w.w > own);
    }
    return n;
}

/* The block's weights in their order, handed over, and its columns' places in it. Of equal weights
 * the earlier is the first. */
static __device__ __forceinline__ void sort_weights(const choice_room &m, uint64_t *to, int n) {
    for (int i = (int)threadIdx.x; i < n; i += THREADS) {
        uint32_t own = m.weights[i];
        int near = i & -CUDA_WARP, behind = near + CUDA_WARP < n ? near + CUDA_WARP : n;
        int place = count_larger<true>(m.weights, 0, near, own);
        for (int j = near; j < behind; j++) {
            place += m.weights[j] > own || (m.weights[j] == own && j < i);
        }
        place += count_larger<false>(m.weights, behind, n, own);
        m.places[i] = place;
        sealed_put(to + place, own, m.seal);
    }
}

/* How many of n sorted weights come before one: larger ones, and equal ones of earlier columns. */
static __device__ __forceinline__ int count_before(const uint32_t *sorted, int n, uint32_t weight,
                                                   bool earlier) {
    int low = 0, high = n;
    while (low < high) {
        int middle = (low + high) / 2;
        bool before = sorted[middle] > weight || (earlier && sorted[middle] == weight);
        low = before ? middle + 1 : low;
        high = before ? high : middle;
    }
    return low;
}

/* How many of the block's columns are among the `most` of largest weight: they are the first in its
 * order. Eight lanes look for a weight's place, each among another block's. */
static __device__ __forceinline__ int count_chosen(const choice_room &m, const choose_step &s,
                                                   const choice_level &l, own_columns own,
                                                   int most) {
    __shared__ int n_chosen;
    int rank = (int)threadIdx.x % MOST_SHARING, warp_end = (own.n + 3) / 4 * 4, chosen = 0;
    own_columns others = columns_of(l, rank, s.sharing);
    if (threadIdx.x == 0) n_chosen = 0;
    sync_workers();
    for (int i = (int)threadIdx.x / MOST_SHARING; i < warp_end; i += THREADS / MOST_SHARING) {
        uint32_t weight = i < own.n ? m.sorted[own.first + i] : 0;
        int before = 0;
        if (rank < s.sharing && rank != m.rank) {
            before = count_before(m.sorted + others.first, others.n, weight, rank < m.rank);
        }
#pragma unroll
        for (int lane = 1; lane < MOST_SHARING; lane *= 2) {
            before += __shfl_xor_sync(~0u, before, lane);
        }
        chosen += weight > 0 && i + before < most;
    }
    if (rank == 0 && chosen > 0) atomicAdd(&n_chosen, chosen);
    sync_workers();
    return n_chosen;
}

/* Chooses the `most` columns of largest weight, of which each block knows then: a bit each, some
 * words a block, in place of sorted weights. */
static __device__ __forceinline__ void choose_columns(const choice_room &m, const choose_step &s,
                                                      const choice_level &l, own_columns own,
                                                      int most) {
    uint64_t *weights = m.handed + 2 * s.sharing * s.sharers, *bits = weights + s.n_columns;
    int words = choice_words(own.each), warp = (int)(threadIdx.x / CUDA_WARP);
    sort_weights(m, weights + own.first, own.n);
    gather(m.sorted, weights, l.n, m.seal);
    int n = count_chosen(m, s, l, own, most);
    for (int i = warp; i < words; i += WARPS) {
        int column = i * CUDA_WARP + (int)(threadIdx.x % CUDA_WARP);
        unsigned chosen = __ballot_sync(~0u, column < own.n && m.places[column] < n);
        if (threadIdx.x % CUDA_WARP == 0) sealed_put(bits + m.rank * words + i, chosen, m.seal);
    }
    gather(m.sorted, bits, s.sharing * words, m.seal);
}

/* Where a chosen column is in the list of them; -1 where it is not. */
static __device__ __forceinline__ int place_of(const uint32_t *bits, own_columns own, int column) {
    int words = choice_words(own.each), of_block = column % own.each, place = 0;
    int word = column / own.each * words + of_block / CUDA_WARP;
    unsigned bit = 1u << of_block % CUDA_WARP;
    if ((bits[word] & bit) == 0) return -1;
    for (int i = 0; i < word; i++) place += __popc(bits[i]);
    return place + __popc(bits[word] & (bit - 1));
}

static __device__ __forceinline__ int count_bits(const uint32_t *bits, int n_words) {
    int n = 0;
    for (int i = 0; i < n_words; i++) n += __popc(bits[i]);
    return n;
}

/* ---- the step ------------------------------------------------------------------------ */

/* Rotates and stores what a head has of the token: by its first block, when all have read it. */
template <int HD> static __device__ __forceinline__ void turn_head(const choose_step &s, int head) {
    enum { OF_HEAD = HD / 8 };
    for (int i = (int)threadIdx.x; i < (s.sharers + 2) * OF_HEAD; i += THREADS) {
        int own = i / OF_HEAD, n_heads = s.heads * s.sharers;
        int at =
            own < s.sharers ? head * s.sharers + own : n_heads + (own - s.sharers) * s.heads + head;
        turn_octet(s.turn, 0, at * OF_HEAD + i % OF_HEAD);
    }
}

/* A block's room, as choice_memory counts it. */
template <int HD>
static __device__ __forceinline__ choice_room room_of(const choose_step &s, unsigned seal, int head,
                                                      int rank, char *memory) {
    int share = s.n_columns / s.sharing;
    float *scores = (float *)(memory + choice_query_bytes(HD));
    int32_t *places = (int32_t *)(scores + s.sharers * share);
    uint32_t *sorted = (uint32_t *)(places + share);
    uint64_t *handed = s.parts + head * 2 * choice_parts(s.sharers, s.n_columns, s.sharing);
    return choice_room{(uint4 *)memory,
                       scores,
                       (uint32_t *)scores,
                       places,
                       sorted,
                       (int32_t *)(sorted + s.n_columns),
                       share,
                       rank,
                       handed,
                       seal};
}

template <int HD, bool is_bf16>
static __device__ __forceinline__ void choose_all(const choose_step &s, unsigned seal,
                                                  char *memory) {
    int head = (int)blockIdx.x / s.sharing, rank = (int)blockIdx.x % s.sharing;
    int n = s.end - s.first;
    int32_t *out = s.groups + head * s.most;
    if (head >= s.heads || (n <= s.most && rank > 0)) return;
    if (n <= s.most) {
        for (int i = (int)threadIdx.x; i < n; i += THREADS) out[i] = s.first + i;
        if (threadIdx.x == 0) s.counts[head] = n;
        if (s.turns) turn_head<HD>(s, head);
        return;
    }
    choice_room m = room_of<HD>(s, seal, head, rank, memory);
    read_choice_queries<HD, is_bf16>(m, s, head);
    sync_workers();
    choice_level l = s.in_levels ? level_of_blocks(s.first, s.end) : level_of_all(s.first, s.end);
    bool last = !s.in_levels;
    for (int level = 0;; level++) {
        own_columns own = columns_of(l, rank, s.sharing);
        int words = s.sharing * choice_words(own.each);
        weigh<HD, is_bf16>(m, s, l, own, head);
        choose_columns(m, s, l, own, last ? s.most : s.most_blocks);
        if (s.turns && level == 0 && rank == 0) turn_head<HD>(s, head);
        int begin = last ? own.first : 0, end = last ? own.first + own.n : l.n;
        for (int i = begin + (int)threadIdx.x; i < end; i += THREADS) {
            int place = place_of(m.sorted, own, i);
            if (place >= 0) (last ? out : m.blocks)[place] = column_id(l, i);
        }
        n = count_bits(m.sorted, words);
        if (last) break;
        sync_workers();
        l = level_of_listed(s.first, s.end, m.blocks, n);
        m.handed += choice_parts(s.sharers, s.n_columns, s.sharing);
        last = true;
    }
    if (rank == 0 && threadIdx.x == 0) s.counts[head] = n;
}

static __device__ __forceinline__ void choose(const choose_step &s, unsigned seal, char *memory) {
    if (s.head_dim == 64) {
        s.is_bf16 ? choose_all<64, true>(s, seal, memory) : choose_all<64, false>(s, seal, memory);
    } else {
        s.is_bf16 ? choose_all<128, true>(s, seal, memory)
                  : choose_all<128, false>(s, seal, memory);
    }
}

#endif
