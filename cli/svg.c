#include "cli/svg.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

void svg_begin(output *out, int width, int height) {
    output_printf(out,
                  "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' "
                  "font-family='sans-serif' font-size='12'>\n"
                  "<rect width='100%%' height='100%%' fill='white'/>\n",
                  width, height);
}

void svg_end(output *out) {
    output_printf(out, "</svg>\n");
}

const char *svg_colour(int index) {
    static const char *const colours[] = {"#0b6e99", "#d9480f", "#2b8a3e", "#862e9c",
                                          "#c92a2a", "#5f3dc4", "#495057", "#e67700"};
    return colours[(size_t)index % (sizeof colours / sizeof *colours)];
}

double svg_place(const svg_scale *s, double value) {
    double low = s->low, high = s->high;
    if (s->is_log) low = log(low), high = log(high), value = log(value);
    return s->from + (s->to - s->from) * (value - low) / (high - low);
}

double svg_round(svg_scale *s, int most) {
    static const double steps[] = {2, 2.5, 2}; /* from 1 to 2, 5 and 10 */
    if (s->is_log) {
        s->low = pow(10, floor(log10(s->low)));
        s->high = pow(10, ceil(log10(s->high)));
        if (s->high <= s->low) s->high = 10 * s->low;
        return 0;
    }
    double range = fmax(s->high - s->low, 1e-3);
    double step = pow(10, floor(log10(range)) - 1);
    for (int i = 0; range / step > most - 1; i++) step *= steps[i % 3];
    s->low = step * floor(s->low / step);
    s->high = fmax(step * ceil(s->high / step), s->low + step);
    return step;
}

static void draw_row(output *out, const svg_scale *y, double value, int left, int right) {
    double at = svg_place(y, value);
    output_printf(out, "<path d='M%d %.1fH%d' stroke='#ddd'/>\n", left, at, right);
    svg_text(out, left - 8, at + 4, "end", NULL, "%.9g", value);
}

void svg_rows(output *out, const svg_scale *y, double step, int left, int right) {
    if (y->is_log) {
        int last = (int)lround(log10(y->high));
        for (int e = (int)lround(log10(y->low)); e <= last; e++) {
            draw_row(out, y, pow(10, e), left, right);
        }
    } else {
        int n = (int)lround((y->high - y->low) / step);
        for (int i = 0; i <= n; i++) draw_row(out, y, y->low + i * step, left, right);
    }
}

void svg_text(output *out, double x, double y, const char *anchor, const char *colour,
              const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    output_printf(out, "<text x='%.1f' y='%.1f' text-anchor='%s'", x, y, anchor);
    if (colour) output_printf(out, " fill='%s'", colour);
    output_printf(out, ">");
    for (const char *c = text; *c; c++) {
        if (*c == '&' || *c == '<') {
            output_printf(out, *c == '&' ? "&amp;" : "&lt;");
        } else {
            output_write(out, c, 1);
        }
    }
    output_printf(out, "</text>\n");
}

void svg_path_begin(output *out, const char *colour, bool dashed) {
    output_printf(out, "<path fill='none' stroke-width='2' stroke='%s'%s d='", colour,
                  dashed ? " stroke-dasharray='6 4'" : "");
}

void svg_path_to(output *out, double x, double y) {
    output_printf(out, "%s%.1f %.1f", out->last == '\'' ? "M" : "L", x, y);
}

void svg_path_end(output *out) {
    output_printf(out, "'/>\n");
}

void svg_dot(output *out, double x, double y, double radius, const char *colour, bool filled) {
    output_printf(out, "<circle r='%.1f' fill='%s' stroke='%s' cx='%.1f' cy='%.1f'/>\n", radius,
                  filled ? colour : "white", colour, x, y);
}
