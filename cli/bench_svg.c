/* The curves of cca bench. */
#include "cli/bench.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 440, LEFT = 70, RIGHT = 560, TOP = 40, BOTTOM = 390 };

/* Both axes are logarithmic; a depth of 0 stands where 2^first would. */
typedef struct axes {
    double first, last; /* log2 of depth */
    double low, high;   /* log10 of tokens a second, whole */
} axes;

static const char *const colours[] = {"#0b6e99", "#d9480f", "#2b8a3e", "#862e9c",
                                      "#c92a2a", "#5f3dc4", "#495057", "#e67700"};
enum { N_COLOURS = sizeof colours / sizeof *colours };

static bool is_drawn(const bench_row *row) {
    return row->test != BENCH_WALK && row->tok_s.median > 0;
}

static double log_depth(const axes *a, int64_t depth) {
    return depth > 0 ? log2((double)depth) : a->first;
}

static axes find_axes(const bench_report *r) {
    axes a = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (size_t i = 0; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        if (!is_drawn(row)) continue;
        a.low = fmin(a.low, floor(log10(row->tok_s.median)));
        a.high = fmax(a.high, ceil(log10(row->tok_s.median)));
        if (row->depth == 0) continue;
        a.first = fmin(a.first, floor(log2((double)row->depth)) - 1);
        a.last = fmax(a.last, ceil(log2((double)row->depth)));
    }
    if (a.first > a.last) a.first = 0, a.last = 1;
    if (a.low > a.high) a.low = 0, a.high = 1;
    if (a.low == a.high) a.high++;
    return a;
}

static double x_of(const axes *a, int64_t depth) {
    return LEFT + (RIGHT - LEFT) * (log_depth(a, depth) - a->first) / (a->last - a->first);
}

static double y_of(const axes *a, double tok_s) {
    return BOTTOM - (BOTTOM - TOP) * (log10(tok_s) - a->low) / (a->high - a->low);
}

static void draw_axes(output *out, const bench_report *r, const axes *a) {
    for (int e = (int)a->low; e <= (int)a->high; e++) {
        double y = y_of(a, pow(10, e));
        output_printf(out, "<path d='M%d %.1fH%d' stroke='#ddd'/>\n", LEFT, y, RIGHT);
        output_printf(out, "<text x='%d' y='%.1f' text-anchor='end'>%.0f</text>\n", LEFT - 8, y + 4,
                      pow(10, e));
    }
    int64_t last = -1;
    for (size_t i = 0; i < r->n; i++) {
        int64_t depth = r->rows[i].depth;
        if (!is_drawn(&r->rows[i]) || depth <= last) continue;
        last = depth;
        output_printf(out, "<text x='%.1f' y='%d' text-anchor='middle'>%" PRId64 "</text>\n",
                      x_of(a, depth), BOTTOM + 20, depth);
    }
    output_printf(out, "<text x='%d' y='%d' text-anchor='middle'>tokens before</text>\n",
                  (LEFT + RIGHT) / 2, BOTTOM + 42);
    output_printf(out, "<text x='%d' y='%d'>tokens a second</text>\n", LEFT - 50, TOP - 16);
}

static bool same_curve(const bench_row *a, const bench_row *b) {
    return is_drawn(b) && a->test == b->test && a->n == b->n && strcmp(a->attn, b->attn) == 0;
}

/* The curve that begins with a row, and its name. */
static void draw_curve(output *out, const bench_report *r, const axes *a, size_t first, int index) {
    const bench_row *start = &r->rows[first];
    const char *colour = colours[index % N_COLOURS];
    output_printf(out, "<path fill='none' stroke-width='2' stroke='%s'%s d='", colour,
                  start->test == BENCH_DECODE ? " stroke-dasharray='6 4'" : "");
    for (size_t i = first; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        if (!same_curve(start, row)) continue;
        output_printf(out, "%s%.1f %.1f", i == first ? "M" : "L", x_of(a, row->depth),
                      y_of(a, row->tok_s.median));
    }
    output_printf(out, "'/>\n");
    for (size_t i = first; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        if (!same_curve(start, row)) continue;
        output_printf(out, "<circle r='3' fill='%s' cx='%.1f' cy='%.1f'/>\n", colour,
                      x_of(a, row->depth), y_of(a, row->tok_s.median));
    }
    output_printf(out, "<text x='%d' y='%d' fill='%s'>%s, %s %" PRId64 "</text>\n", RIGHT + 12,
                  TOP + 12 + 20 * index, colour, start->attn, bench_test_name(start->test),
                  start->n);
}

void bench_report_svg(output *out, const bench_report *r) {
    axes a = find_axes(r);
    int n_curves = 0;
    output_printf(out,
                  "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' "
                  "font-family='sans-serif' font-size='12'>\n"
                  "<rect width='100%%' height='100%%' fill='white'/>\n",
                  WIDTH, HEIGHT);
    draw_axes(out, r, &a);
    for (size_t i = 0; i < r->n; i++) {
        bool begins = is_drawn(&r->rows[i]);
        for (size_t k = 0; begins && k < i; k++) begins = !same_curve(&r->rows[i], &r->rows[k]);
        if (begins) draw_curve(out, r, &a, i, n_curves++);
    }
    output_printf(out, "</svg>\n");
}
