/* How ranks share a prompt: the integers. A leaf, but for memory.
 *
 *     cca_slices s = {.n_ranks = 4, .begin = 0, .end = 131072, .unit = 512};
 *     cca_slice own = cca_slice_at(&s, cca_slice_of(&s, rank, 1));    // positions own.begin … end
 * - 1 cca_transfers list; cca_transfers_make(&list, &s, &needs, rank, &err);
 *     cca_transfers_free(&list);
 *
 * A text is cut into two slices for each of N ranks, and rank r has slices r and 2N - 1 - r, in two
 * waves: the further behind a token stands the more cores it sees, so pairs of an early and a late
 * slice cost all the same. Rank 0 has the end of the text, whose queries see all there is: what a
 * state keeps comes together there. It also has all that was there before the text.
 *
 * What a slice of the first wave needs is of the first wave, too. So the first wave's keys are sent
 * while the second's are made, and the second's while the first one attends.
 *
 * Of the first slices all see all, of the second ones rank r's is seen by r others: the later a
 * rank's first slice, the more it would send, (N - 1 + r) / 2N of the text's rows. So of slice r
 * rank N - 1 - r, which sends as much less than the mean as rank r more, passes on a part to those
 * who want it for their second slices alone: once it has it, beside what the first slices attend to
 * (CCA_RELAY). Then all send 3 (N - 1) / 4N of the text's rows, and their windows. */
#ifndef CCA_SHARE_PLAN_H
#define CCA_SHARE_PLAN_H

#include "base/base.h"

typedef struct cca_slices {
    int n_ranks;
    int64_t begin, end; /* positions of the text */
    int64_t unit;       /* slices begin at multiples of it, but for the first */
    int64_t together;   /* none begins before this position, but for the first */
} cca_slices;

typedef struct cca_slice {
    int64_t begin, end; /* may be equal */
} cca_slice;

enum { CCA_WAVES = 2, CCA_RELAY = CCA_WAVES, CCA_SENDINGS, CCA_SLICE_BEFORE = -1 };

/* Slices that there are: two a rank; a single rank has all in one. */
int cca_slice_count(const cca_slices *s);
/* Positions of slice i; of CCA_SLICE_BEFORE those before the text. */
cca_slice cca_slice_at(const cca_slices *s, int i);
/* Who has it, in which wave, and which one a rank has in a wave; CCA_SLICE_BEFORE: rank 0, wave 0.
 * A single rank has none in the second (slice_of is cca_slice_count then, an empty slice). */
int cca_slice_owner(const cca_slices *s, int i);
int cca_slice_wave(const cca_slices *s, int i);
int cca_slice_of(const cca_slices *s, int rank, int wave);

/* What is sent of a layer's keys and values. */
typedef enum cca_sent {
    CCA_SENT_RAW,    /* raw rows by position, of all that somebody sees or, where ring > 0, of the
                        window before a slice */
    CCA_SENT_SINKS,  /* rows of their own, by position */
    CCA_SENT_CORES,  /* by group */
    CCA_SENT_BOUNDS, /* by group */
    CCA_SENT_ROWS,   /* of whole groups, by position, beside a ring */
    CCA_N_SENT
} cca_sent;

/* A rank keeps what positions have left: whole groups, or tokens where raw rows are not a ring. */
typedef struct cca_holding {
    int rank;
    cca_slice at;
} cca_holding;

/* What attention needs of a layer. */
typedef struct cca_share_needs {
    int64_t group_size, window_size;
    int64_t ring;    /* raw rows before a slice that it sees one by one; 0: all */
    int64_t n_sinks; /* rows of CCA_SENT_SINKS */
    bool cores, bounds, rows;
    /* All that lies before the text, but for the ring and the sinks, which are rank 0's; each rank
     * keeps its slices, too, then. NULL: rank 0 has all, and is sent all of the text. */
    const cca_holding *held;
    int n_held;
} cca_share_needs;

/* Rows first … first + n - 1 of a kind go from a slice to who needs them. */
typedef struct cca_transfer {
    int from, to; /* ranks; the same: from one slice to the next */
    int source;   /* the slice that made them */
    int wave;     /* in which they are sent: the source's, or CCA_RELAY */
    int target;   /* of CCA_SENT_RAW with a ring: the wave of the slice that they go before */
    cca_sent kind;
    int64_t first, n;
} cca_transfer;

typedef struct cca_transfers {
    cca_transfer *at;
    int n, room;
} cca_transfers;

/* All that a rank sends or receives, or with rank -1 all that anybody does, in an order that is the
 * same for all ranks. What several receivers need of a slice is the same stretch for each, but for
 * who sees less. CCA_NO_MEMORY. */
cca_status cca_transfers_make(cca_transfers *out, const cca_slices *s, const cca_share_needs *needs,
                              int rank, cca_error *err);
void cca_transfers_free(cca_transfers *list);

#endif
