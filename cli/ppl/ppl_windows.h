/* How a text is cut into windows whose tokens are scored. No model is needed for that.
 *
 *     ppl_layout layout = {.mode = PPL_STRIDE, .bos = PPL_BOS_EVERY, .n_tokens = 1000,
 *                          .window = 512, .stride = 256};
 *     ppl_window w;
 *     for (int64_t i = 0; ppl_window_at(&w, &layout, i); i++) ... */
#ifndef CCA_CLI_PPL_WINDOWS_H
#define CCA_CLI_PPL_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum ppl_mode {
    PPL_FULL,     /* one window over everything */
    PPL_STRIDE,   /* windows at 0, stride, 2 stride …: a token is scored in the first with it */
    PPL_CHUNK,    /* windows side by side, positions from score_from on are scored */
    PPL_LLAMACPP, /* the same with window / 2 + 1; the last, partial window is left out */
} ppl_mode;

typedef enum ppl_bos { PPL_BOS_EVERY, PPL_BOS_FIRST, PPL_BOS_NONE } ppl_bos;

typedef struct ppl_layout {
    ppl_mode mode;
    ppl_bos bos; /* which windows begin with a BOS beside the text's tokens */
    int64_t n_tokens;
    int64_t window; /* positions, BOS included; PPL_FULL: any */
    int64_t stride, score_from;
} ppl_layout;

/* The text's tokens begin … end - 1, behind a BOS where bos is set. Tokens score … end - 1 are
 * scored: those that no earlier window has scored, and that have a token before them. */
typedef struct ppl_window {
    int64_t begin, end, score;
    bool bos;
} ppl_window;

/* Window number index; false behind the last. */
bool ppl_window_at(ppl_window *out, const ppl_layout *layout, int64_t index);

/* The largest stride that leaves no token without a score (mode stride). */
int64_t ppl_largest_stride(const ppl_layout *layout);

/* Positions of a window. */
int64_t ppl_window_size(const ppl_window *w);

/* Positions of all windows, of the largest, and scored tokens. */
typedef struct ppl_totals {
    int64_t n_windows, positions, largest, scored;
} ppl_totals;

ppl_totals ppl_layout_totals(const ppl_layout *layout);

#endif
