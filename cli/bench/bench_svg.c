/* The curves of cca bench. */
#include "cli/bench/bench.h"
#include "cli/svg.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 440, LEFT = 70, RIGHT = 560, TOP = 40, BOTTOM = 390 };

/* Depth 0 stands where zero would. */
typedef struct axes {
    svg_scale x, y;
    double zero;
} axes;

static bool is_drawn(const bench_row *row) {
    return row->test != BENCH_WALK && row->tok_s.median > 0;
}

static axes find_axes(const bench_report *r) {
    svg_scale x = {.from = LEFT, .to = RIGHT, .is_log = true, .low = INFINITY, .high = 0};
    svg_scale y = {.from = BOTTOM, .to = TOP, .is_log = true, .low = INFINITY, .high = 0};
    for (size_t i = 0; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        if (!is_drawn(row)) continue;
        y.low = fmin(y.low, row->tok_s.median);
        y.high = fmax(y.high, row->tok_s.median);
        if (row->depth == 0) continue;
        x.low = fmin(x.low, exp2(floor(log2((double)row->depth)) - 1));
        x.high = fmax(x.high, exp2(ceil(log2((double)row->depth))));
    }
    if (x.low > x.high) x.low = 1, x.high = 2;
    if (y.low > y.high) y.low = 1, y.high = 10;
    svg_round(&y, 0);
    return (axes){x, y, x.low};
}

static double x_of(const axes *a, int64_t depth) {
    return svg_place(&a->x, depth > 0 ? (double)depth : a->zero);
}

static void draw_axes(output *out, const bench_report *r, const axes *a) {
    svg_rows(out, &a->y, 0, LEFT, RIGHT);
    int64_t last = -1;
    for (size_t i = 0; i < r->n; i++) {
        int64_t depth = r->rows[i].depth;
        if (!is_drawn(&r->rows[i]) || depth <= last) continue;
        last = depth;
        svg_text(out, x_of(a, depth), BOTTOM + 20, "middle", NULL, "%lld", (long long)depth);
    }
    svg_text(out, (LEFT + RIGHT) / 2.0, BOTTOM + 42, "middle", NULL, "tokens before");
    svg_text(out, LEFT - 50, TOP - 16, "start", NULL, "tokens a second");
}

static bool same_curve(const bench_row *a, const bench_row *b) {
    return is_drawn(b) && a->test == b->test && a->n == b->n && strcmp(a->attn, b->attn) == 0;
}

/* The curve that begins with a row, and its name. */
static void draw_curve(output *out, const bench_report *r, const axes *a, size_t first, int index) {
    const bench_row *start = &r->rows[first];
    const char *colour = svg_colour(index);
    svg_path_begin(out, colour, start->test == BENCH_DECODE);
    for (size_t i = first; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        if (same_curve(start, row)) {
            svg_path_to(out, x_of(a, row->depth), svg_place(&a->y, row->tok_s.median));
        }
    }
    svg_path_end(out);
    for (size_t i = first; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        if (same_curve(start, row)) {
            svg_dot(out, x_of(a, row->depth), svg_place(&a->y, row->tok_s.median), 3, colour, true);
        }
    }
    svg_text(out, RIGHT + 12, TOP + 12 + 20 * index, "start", colour, "%s, %s %lld", start->attn,
             bench_test_name(start->test), (long long)start->n);
}

void bench_report_svg(output *out, const bench_report *r) {
    axes a = find_axes(r);
    int n_curves = 0;
    svg_begin(out, WIDTH, HEIGHT);
    draw_axes(out, r, &a);
    for (size_t i = 0; i < r->n; i++) {
        bool begins = is_drawn(&r->rows[i]);
        for (size_t k = 0; begins && k < i; k++) begins = !same_curve(&r->rows[i], &r->rows[k]);
        if (begins) draw_curve(out, r, &a, i, n_curves++);
    }
    svg_end(out);
}
