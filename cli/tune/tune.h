/* The parts of cca tune: what is measured on, points of the sweep, the choice among them, the state
 * that outlives the process, and the reports.
 *
 *     tune_make_points(&points, &n, &lists, &settings, engine, &term, &err);
 *     tune_task task = {0};
 *     tune_task_make(&task, engine, &text, &settings, &err);
 *     tune_measure(&point, &task, engine, &progress, &err);       // for each point
 *     tune_mark_pareto(points, n);
 *     tune_choose(points, n, &limits); */
#ifndef CCA_CLI_TUNE_H
#define CCA_CLI_TUNE_H

#include "cli/measure.h"
#include "cli/ppl/ppl_windows.h"
#include "cli/prompt.h"

/* ---- points ---- */

/* One attention, and what was measured with it. */
typedef struct tune_point {
    int64_t group_size, window_size; /* both 0: full attention */
    int64_t sinks, recall;           /* tokens; recall 0: CCA */
    bool cores;                      /* what is not recalled is seen as cores */
    bool own;                        /* what the model says */
    bool over_limit;                 /* takes more memory than --mem-limit: not measured */
    bool measured, reused;           /* reused: in an earlier run */
    uint64_t cache_bytes;            /* keys and values at the stated length */
    uint64_t memory_bytes;           /* weights, cache and activations of a run of that length */
    int64_t n_scored;
    double perplexity, standard_error;
    int64_t n_facts, n_right;
    double prefill_tps, decode_tps; /* tokens a second */
    double seconds;                 /* of both together: the document and TUNE_DECODED behind it */
    bool pareto, chosen;
} tune_point;

bool tune_is_full(const tune_point *p);
/* Whether both are the same attention. */
bool tune_same_point(const tune_point *a, const tune_point *b);

/* "g 16, s 1024, recall 2048, no cores" */
enum { TUNE_NAME = 96 };
void tune_point_name(char out[TUNE_NAME], const tune_point *p);

/* Right answers in per cent; 100 where no facts were asked for. */
double tune_facts_percent(const tune_point *p);

/* ---- the choice ---- */

typedef struct tune_limits {
    bool has_ppl_increase, against_full;
    double ppl_increase; /* per cent over the reference */
    uint64_t memory;     /* 0: none; already decided what is measured */
    double max_seconds;  /* 0: none */
    double max_share;    /* of full attention's seconds; 0: none */
    double min_tps;      /* of decode; 0: none */
    double min_facts;    /* per cent; 0: none */
} tune_limits;

bool tune_has_limits(const tune_limits *l);

/* The point that perplexities are compared with: full attention, or the lowest of the others; NULL
 * where it was not measured. */
const tune_point *tune_reference(const tune_point *points, size_t n, bool full);
/* By how many per cent a perplexity is above the reference's. */
double tune_increase(const tune_point *p, const tune_point *reference);

/* Marks the points that no other one beats: a point is beaten by one that is as good in perplexity,
 * facts, cache and both speeds, and better in one of them. Speeds within 5 % of each other count as
 * equal. Full attention takes no part. */
void tune_mark_pareto(tune_point *points, size_t n);

/* Marks and returns the point that meets all limits and, with a limit of perplexity, has the
 * smallest cache, of equal ones the shortest time (within 5 % is equal), then the lowest
 * perplexity; else the lowest perplexity, then the smallest cache. NULL where none does. Full
 * attention cannot be chosen. */
tune_point *tune_choose(tune_point *points, size_t n, const tune_limits *l);

/* ---- facts ---- */

enum { TUNE_MOST_FACTS = 256, TUNE_FACT_TEXT = 96, TUNE_CODE_TEXT = 8 };

typedef struct tune_fact {
    char statement[TUNE_FACT_TEXT], question[TUNE_FACT_TEXT], code[TUNE_CODE_TEXT];
} tune_fact;

/* The same n ≤ TUNE_MOST_FACTS facts in each run, about places and with codes that are all
 * different. */
void tune_make_facts(tune_fact *out, int n);

/* Puts the facts between the first size bytes of a text, number i behind (i + 1/2) / n of them at
 * the next end of a paragraph, else sentence, line, word. out is zeroed by the caller, who frees
 * it. CCA_NO_MEMORY. */
cca_status tune_plant_facts(input_text *out, const input_text *text, size_t size,
                            const tune_fact *facts, int n, cca_error *err);

/* Whether an answer has the code, as a number of its own. */
bool tune_is_right(const tune_fact *fact, const char *given, size_t size);

/* ---- what is measured on ---- */

typedef struct tune_settings {
    chat_options chat;
    context_options context; /* ctx_size: of perplexity's windows; 0: 8192 or what fits */
    int64_t n_tokens;        /* of the text, for perplexity; 0: all */
    int64_t length;          /* of the document; 0: 32768 or what fits */
    int64_t cache_at;        /* positions that cache and memory are told for; 0: the document's */
    int64_t n_facts;
    const char *clock;
    bool fp8; /* that of the engine */
} tune_settings;

enum { TUNE_DECODED = 32, TUNE_MOST_ANSWER = 32 };

/* ---- the sweep ---- */

/* What to try: numbers "2,4", cores "yes", "no" or "both". NULL is the model's own, and where all
 * are NULL, what weights of its training differ in. */
typedef struct tune_lists {
    const char *groups, *windows, *recalls, *cores;
    bool cross, full; /* only the lines through the model's own; full attention, too */
} tune_lists;

/* The points in order, to be freed by the caller, with the model's own among them. Tells which are
 * left out since their numbers are no multiples of g. CCA_USAGE for bad lists, CCA_NO_MEMORY. */
cca_status tune_make_points(tune_point **out, size_t *n, const tune_lists *lists,
                            const tune_settings *settings, const cca_engine *engine, term *t,
                            cca_error *err);

/* The context of a point's sessions. */
context_options tune_context(const tune_settings *settings, const tune_point *p);

typedef struct tune_task {
    const tune_settings *settings;
    cca_tokens text; /* for perplexity, without BOS */
    uint64_t text_bytes, text_hash;
    ppl_layout layout;
    prompt prompt;      /* the document with facts; behind it a question, in place of another one */
    int64_t n_document; /* tokens up to its end */
    tune_fact facts[TUNE_MOST_FACTS];
    int n_facts;
    int64_t ctx_size;  /* positions that a point's session needs */
    int64_t positions; /* that measuring a point evaluates, about: for the progress */
    char *signature;   /* all that measurements depend on but a point's attention */
} tune_task;

/* CCA_NO_FIT for a text that is too short or settings beyond the trained length, CCA_USAGE without
 * a template (NULL tokenizers are the caller's business), CCA_NO_MEMORY. free is due in any case.
 */
cca_status tune_task_make(tune_task *out, const cca_engine *engine, const input_text *text,
                          bool special, const tune_settings *settings, cca_error *err);
void tune_task_free(tune_task *t);

/* Puts question i behind the document, in place of another one. */
cca_status tune_put_question(tune_task *t, int i, cca_error *err);

/* Fills what needs no evaluation: cache and memory at the stated length. */
cca_status tune_plan(tune_point *p, const tune_task *t, const cca_engine *engine, cca_error *err);

/* Measures a point; the progress of the term goes on from done. */
cca_status tune_measure(tune_point *p, tune_task *t, cca_engine *engine, term *show, int64_t done,
                        cca_error *err);

/* ---- state ---- */

typedef struct tune_state {
    char *path;            /* NULL: nothing is kept */
    const char *signature; /* borrowed */
    bool named;            /* by --state: what is wrong with it is an error, not a warning */
    json_t *points;
} tune_state;

/* Reads what earlier runs have measured; file NULL: a name in the cache folder by the signature. A
 * named file of other settings or that is no state file is CCA_BAD_MODEL. */
cca_status tune_state_open(tune_state *s, const char *file, const char *signature, term *t,
                           cca_error *err);
/* Fills what the state has of a point; false where it has none. */
bool tune_state_find(const tune_state *s, tune_point *p);
/* Adds a measured point to the file, which is replaced as a whole. CCA_BAD_OUTPUT; with a file of
 * the cache folder that is a warning, and nothing more is kept. */
cca_status tune_state_add(tune_state *s, const tune_point *p, term *t, cca_error *err);
void tune_state_close(tune_state *s);

/* ---- reports ---- */

typedef struct tune_report {
    const cca_engine_facts *facts;
    const tune_task *task;
    const tune_limits *limits;
    const tune_point *points; /* [n] */
    size_t n;
    const tune_point *reference, *choice; /* choice: NULL where none was made */
    int64_t cache_at;
} tune_report;

void tune_report_md(output *out, const tune_report *r);
void tune_report_csv(output *out, const tune_report *r);
void tune_report_json(output *out, const tune_report *r, json_t *warnings);
/* Perplexity and facts against cache, a curve a window; where points differ in recall, against
 * time, a curve for each of the others. */
void tune_report_svg(output *out, const tune_report *r);

#endif
