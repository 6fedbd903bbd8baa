/* Whether a code point is in one of some ranges, which are in order.
 *
 *     static const int32_t ranges[][2] = {{0x300, 0x36f}, {0x483, 0x489}};
 *     if (cca_in_ranges(point, ranges, sizeof ranges / sizeof *ranges)) ... */
#ifndef CCA_RANGES_H
#define CCA_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool cca_in_ranges(int32_t point, const int32_t (*ranges)[2], size_t n) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (point > ranges[middle][1]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && point >= ranges[low][0];
}

#endif
