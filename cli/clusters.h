/* What of a line is shown as one character: a letter with its accents, an emoji with what joins it.
 *
 *     size_t n = cluster_before(line, cursor);      // code points that one key erases
 *
 * As in Unicode's extended grapheme clusters, but for prefixes and the scripts of India. The locale
 * is one of UTF-8. */
#ifndef CCA_CLI_CLUSTERS_H
#define CCA_CLI_CLUSTERS_H

#include <stddef.h>
#include <wchar.h>

/* Code points of the one that ends at `at`, and of the one that begins there; 0 at the line's ends.
 */
size_t cluster_before(const wchar_t *begin, const wchar_t *at);
size_t cluster_behind(const wchar_t *begin, const wchar_t *at, const wchar_t *end);

#endif
