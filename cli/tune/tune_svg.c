/* The picture of cca tune: perplexity and facts against cache, a curve a window. */
#include "cli/svg.h"
#include "cli/tune/tune.h"

#include <math.h>

enum { WIDTH = 900, LEFT = 70, RIGHT = 720, TOP = 40, PANEL = 300, GAP = 70 };

typedef enum measure { PERPLEXITY, FACTS } measure;

typedef struct panel {
    const tune_report *r;
    measure what;
    svg_scale x, y;
} panel;

static double value_of(const tune_point *p, measure what) {
    return what == PERPLEXITY ? p->perplexity : tune_facts_percent(p);
}

static bool is_drawn(const tune_point *p) {
    return p->measured && p->cache_bytes > 0;
}

static panel make_panel(const tune_report *r, measure what, int top) {
    panel p = {.r = r,
               .what = what,
               .x = {.from = LEFT, .to = RIGHT, .is_log = true, .low = INFINITY, .high = 0},
               .y = {.from = top + PANEL, .to = top, .low = INFINITY, .high = -INFINITY}};
    for (size_t i = 0; i < r->n; i++) {
        if (!is_drawn(&r->points[i])) continue;
        double value = value_of(&r->points[i], what), cache = (double)r->points[i].cache_bytes;
        p.x.low = fmin(p.x.low, cache / 1.1);
        p.x.high = fmax(p.x.high, cache * 1.1);
        p.y.low = fmin(p.y.low, value);
        p.y.high = fmax(p.y.high, value);
    }
    if (p.x.low > p.x.high) p.x.low = 1, p.x.high = 2, p.y.low = 0, p.y.high = 1;
    return p;
}

/* Sizes of 1, 2, 5, 10 … bytes that lie within the scale. */
static void draw_sizes(output *out, const svg_scale *x, double bottom) {
    static const int digits[] = {1, 2, 5};
    int last = 3 * (int)floor(log10(x->high)) + 2;
    for (int i = 3 * (int)floor(log10(fmax(x->low, 1))); i <= last; i++) {
        char text[TERM_SIZE_TEXT];
        double size = digits[i % 3] * pow(10, floor(i / 3.0));
        if (size >= x->low && size <= x->high) {
            svg_text(out, svg_place(x, size), bottom + 20, "middle", NULL, "%s",
                     term_size(text, (uint64_t)(size + 0.5)));
        }
    }
}

static void draw_frame(output *out, panel *p, const char *title) {
    double step = svg_round(&p->y, 7);
    svg_rows(out, &p->y, step, LEFT, RIGHT);
    draw_sizes(out, &p->x, p->y.from);
    svg_text(out, LEFT - 50, p->y.to - 16, "start", NULL, "%s", title);
    svg_text(out, (LEFT + RIGHT) / 2.0, p->y.from + 40, "middle", NULL, "cache at %lld tokens",
             (long long)p->r->cache_at);
}

static double x_of(const panel *p, const tune_point *point) {
    return svg_place(&p->x, (double)point->cache_bytes);
}

static double y_of(const panel *p, const tune_point *point) {
    return svg_place(&p->y, value_of(point, p->what));
}

static bool same_curve(const tune_point *a, const tune_point *b) {
    return is_drawn(b) && a->window_size == b->window_size;
}

/* Points of the Pareto set are filled, the chosen one is encircled, each tells its g. */
static void draw_point(output *out, const panel *p, const tune_point *point, const char *colour) {
    double x = x_of(p, point), y = y_of(p, point);
    if (point->chosen) svg_dot(out, x, y, 9, colour, false);
    svg_dot(out, x, y, 4, colour, point->pareto);
    if (!tune_is_full(point)) {
        svg_text(out, x + 6, y - 6, "start", colour, "%lld", (long long)point->group_size);
    }
}

static void draw_curve(output *out, const panel *p, size_t first, int index) {
    const tune_point *points = p->r->points, *start = &points[first];
    const char *colour = svg_colour(index);
    svg_path_begin(out, colour, false);
    for (size_t i = first; i < p->r->n; i++) {
        if (same_curve(start, &points[i])) {
            svg_path_to(out, x_of(p, &points[i]), y_of(p, &points[i]));
        }
    }
    svg_path_end(out);
    for (size_t i = first; i < p->r->n; i++) {
        if (same_curve(start, &points[i])) draw_point(out, p, &points[i], colour);
    }
    double y = p->y.to + 12 + 20 * index;
    if (tune_is_full(start)) {
        svg_text(out, RIGHT + 12, y, "start", colour, "full attention");
    } else {
        svg_text(out, RIGHT + 12, y, "start", colour, "s = %lld, g beside points",
                 (long long)start->window_size);
    }
}

static void draw_panel(output *out, panel *p, const char *title) {
    const tune_point *points = p->r->points;
    int n_curves = 0;
    draw_frame(out, p, title);
    for (size_t i = 0; i < p->r->n; i++) {
        bool begins = is_drawn(&points[i]);
        for (size_t k = 0; begins && k < i; k++) begins = !same_curve(&points[i], &points[k]);
        if (begins) draw_curve(out, p, i, n_curves++);
    }
}

void tune_report_svg(output *out, const tune_report *r) {
    bool facts = r->task->n_facts > 0;
    panel perplexity = make_panel(r, PERPLEXITY, TOP);
    svg_begin(out, WIDTH, TOP + (facts ? 2 : 1) * (PANEL + GAP) + (facts ? GAP / 2 : 0));
    draw_panel(out, &perplexity, "perplexity; filled: the Pareto set");
    if (facts) {
        panel found = make_panel(r, FACTS, TOP + PANEL + GAP + GAP / 2);
        draw_panel(out, &found, "facts found, per cent");
    }
    svg_end(out);
}
