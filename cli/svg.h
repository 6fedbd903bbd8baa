/* Pictures of curves.
 *
 *     svg_scale x = {.low = 0, .high = 10, .from = 70, .to = 560};
 *     svg_begin(&out, 720, 440);
 *     svg_rows(&out, &y, 70, 560);
 *     svg_path_begin(&out, svg_colour(0), false);
 *     for (size_t i = 0; i < n; i++) svg_path_to(&out, svg_place(&x, a[i]), svg_place(&y, b[i]));
 *     svg_path_end(&out);
 *     svg_end(&out); */
#ifndef CCA_CLI_SVG_H
#define CCA_CLI_SVG_H

#include "cli/output.h"

void svg_begin(output *out, int width, int height);
void svg_end(output *out);

/* One of a few colours that can be told apart, again from the first behind the last. */
const char *svg_colour(int index);

/* Values low < high stand at the pixels from and to; logarithmic ones are positive. */
typedef struct svg_scale {
    double low, high;
    double from, to;
    bool is_log;
} svg_scale;

double svg_place(const svg_scale *scale, double value);

/* Widens a linear scale to whole steps of 1, 2 or 5 times a power of ten, at most most of them, and
 * returns the step; a logarithmic one to whole powers of ten. Needs finite bounds. */
double svg_round(svg_scale *scale, int most);

/* Lines from left to right at the steps of a rounded scale, with their numbers at the left; at the
 * powers of ten of a logarithmic one. */
void svg_rows(output *out, const svg_scale *y, double step, int left, int right);

/* anchor: "start", "middle", "end"; colour NULL: black. & and < in the text are escaped. */
void svg_text(output *out, double x, double y, const char *anchor, const char *colour,
              const char *format, ...) __attribute__((format(printf, 6, 7)));

void svg_path_begin(output *out, const char *colour, bool dashed);
/* The first call behind svg_path_begin starts the line. */
void svg_path_to(output *out, double x, double y);
void svg_path_end(output *out);

/* A disc, or a ring filled with white. */
void svg_dot(output *out, double x, double y, double radius, const char *colour, bool filled);

#endif
