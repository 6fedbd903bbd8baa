/* The steps of a token in decode, as token.cu collects them and its kernel carries them out.
 *
 *     token_step s = {};
 *     s.kind = TOKEN_TURN;
 *     s.turn = turn_args{rows, q, k, v, angles, pos, n_heads, kv_heads, interleaved}; */
#ifndef CCA_CUDA_TOKEN_STEPS_CUH
#define CCA_CUDA_TOKEN_STEPS_CUH

#include "backend/cuda/attend_few.cuh"
#include "backend/cuda/rope.cuh"

enum {
    TOKEN_MOST = 3,   /* products in a step */
    TOKEN_WARPS = 11, /* of a block, that compute; one copies: with more there would be spills */
};

enum token_kind { TOKEN_PRODUCT, TOKEN_NORM, TOKEN_TURN, TOKEN_CHOOSE, TOKEN_ATTEND };

/* Weights of a step's products, one behind the other. */
struct token_weights {
    const char *values[TOKEN_MOST], *scales[TOKEN_MOST];
    int rows[TOKEN_MOST], cols;
    int n_units;  /* rows of all products; pairs of rows where gated */
    bool gated;   /* two products, and out of the first is silu(first) * second */
    uint8_t type; /* of all, a cca_dtype */
};

struct token_output {
    const float *bias;
    float *out;
    bool accumulate;
};

struct product_step {
    token_weights weights;
    token_output outputs[TOKEN_MOST];
    int number;            /* among the steps that are products */
    const float *x, *norm; /* norm: weights of the norm, or NULL */
    float eps;
    bool beside; /* wants nothing of the step before: nobody waits for that one */
};

/* Rows of one matrix, or of two, normed in place: a token's heads of queries and of keys. */
struct normed_rows {
    float *x;
    const float *weight;
    int rows, cols;
    float eps;
};

struct norm_step {
    normed_rows of[2];
    int n;
};

/* Attention; where it turns, with the rotation and storing of the step before. What takes divisions
 * of 64 bits to find out is found out by the host. */
struct attend_step {
    key_runs keys; /* without the query's own key where that is not stored yet */
    turn_args turn;
    const float *q;
    float *out;
    uint64_t *parts; /* [n_heads][splits][head_dim + 2] sealed: sums, largest score, total */
    int64_t own_row; /* where the query's own key goes, in each head */
    int n_heads, head_dim;
    int splits, each; /* of the keys of a head; keys of a split */
    bool turns, is_bf16;
};

/* Bounds of groups or of blocks: [heads][capacity] rows. */
struct choice_bounds {
    const uint4 *high, *low;
    int64_t capacity;
};

/* Which of the groups first … end - 1 are recalled; where it turns, with the rotation and storing
 * of the step before. */
struct choose_step {
    choice_bounds bounds[2]; /* of groups, and of blocks */
    turn_args turn;
    const float *q;
    int32_t *groups, *counts;     /* [heads][most], [heads] */
    int heads, sharers, head_dim; /* heads: of keys */
    int first, end, most, most_blocks;
    int n_columns;   /* of the largest level, whole sixteens for each block */
    int sharing;     /* blocks a head */
    uint64_t *parts; /* [heads][2 levels][choice_parts] sealed */
    bool in_levels, turns, is_bf16;
};

/* Words of 32 bits that some columns take. */
static inline __host__ __device__ int choice_words(int n_columns) {
    return (n_columns + 31) / 32;
}

/* What a head's blocks hand to each other in a level: two values of each block's rows, columns'
 * weights, and a bit each. */
static inline __host__ __device__ int choice_parts(int n_rows, int n_columns, int sharing) {
    return 2 * n_rows * sharing + n_columns + sharing * choice_words(n_columns / sharing);
}

struct token_step {
    token_kind kind;
    union {
        product_step product;
        norm_step norm;
        turn_args turn;
        choose_step choose;
        attend_step attend;
    };
};

#endif
