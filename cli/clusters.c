#include "cli/clusters.h"

#include <stdbool.h>

enum { JOINER = 0x200d };

/* What is shown with the character before it. */
static bool extends(wchar_t c) {
    bool modifier = c >= 0x1f3fb && c <= 0x1f3ff, tag = c >= 0xe0020 && c <= 0xe007f;
    return modifier || tag || (c >= ' ' && wcwidth(c) == 0);
}

static bool is_pictograph(wchar_t c) {
    return (c >= 0x2190 && c <= 0x2bff) || (c >= 0x1f000 && c <= 0x1faff);
}

/* Two of these are a flag. */
static bool is_regional(wchar_t c) {
    return c >= 0x1f1e6 && c <= 0x1f1ff;
}

/* Whether *c belongs to what stands before it. */
static bool is_joined(const wchar_t *begin, const wchar_t *c) {
    if (c == begin || c[-1] < ' ') return false;
    if (extends(*c)) return true;
    if (c[-1] == JOINER) return is_pictograph(*c);
    size_t n = 0;
    while (is_regional(*c) && c - n > begin && is_regional(*(c - n - 1))) n++;
    return n % 2 != 0;
}

size_t cluster_before(const wchar_t *begin, const wchar_t *at) {
    size_t n = at > begin;
    while (n > 0 && is_joined(begin, at - n)) n++;
    return n;
}

size_t cluster_behind(const wchar_t *begin, const wchar_t *at, const wchar_t *end) {
    size_t n = at < end;
    while (n > 0 && at + n < end && is_joined(begin, at + n)) n++;
    return n;
}
