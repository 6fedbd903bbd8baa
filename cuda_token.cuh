/* The steps of a token in decode, as cuda_token.cu collects them and its kernel carries them out.
 *
 *     token_step s = {};
 *     s.kind = TOKEN_TURN;
 *     s.turn = turn_args{rows, q, k, v, angles, pos, n_heads, kv_heads, interleaved}; */
#ifndef CCA_CUDA_TOKEN_CUH
#define CCA_CUDA_TOKEN_CUH

#include "cca_cuda_split.cuh"
#include "cuda_rope.cuh"

enum {
    TOKEN_MOST = 3,   /* products in a step */
    TOKEN_WARPS = 12, /* of a block */
};

enum token_kind { TOKEN_PRODUCT, TOKEN_TURN, TOKEN_ATTEND };

/* Weights of a step's products, one behind the other. */
struct token_weights {
    const char *values[TOKEN_MOST], *scales[TOKEN_MOST];
    int rows[TOKEN_MOST], cols;
    int n_units; /* rows of all products; pairs of rows where gated */
    bool gated;  /* two products, and out of the first is silu(first) * second */
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
};

struct token_step {
    token_kind kind;
    union {
        product_step product;
        turn_args turn;
        split_args attend;
    };
};

#endif
