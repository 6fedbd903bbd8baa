/* How much memory there is to be had, and how much this process has.
 *
 *     if (bytes > cca_memory_available("")) ...      // refuse before it is too late
 *     uint64_t mine = cca_memory_resident();
 *
 * Neither fails: what the system does not tell is taken as no limit. */
#ifndef CCA_AVAILABLE_MEMORY_H
#define CCA_AVAILABLE_MEMORY_H

#include "base/base.h"

/* Bytes that the machine can give without swapping, within the limits of the control groups
 * (versions 1 and 2) that this process is in; the page cache counts as free. root stands before
 * /proc and /sys: "" but in tests. */
uint64_t cca_memory_available(const char *root);

/* Whether so many bytes more can be had, and an eighth of what is available is left. Memory is
 * promised that is not there, and who then takes it is killed: what grows with an input asks
 * before. Small sizes are there. */
bool cca_memory_has(size_t bytes);

/* Bytes of this process that are in memory now, mapped files included. */
uint64_t cca_memory_resident(void);

#endif
