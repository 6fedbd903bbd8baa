/* How many threads are worth having.
 *
 *     cca_workers *w = cca_workers_new(cca_physical_cores(""));
 *
 * Processors that this process may use: its affinity (OpenMP's places where it has some), no more
 * than the quota of time that the control groups (versions 1 and 2) give it, in whole processors,
 * since threads beyond a quota stop each other, and no more than OpenMP was told to use. From 1 to
 * CCA_MOST_THREADS; neither fails. root stands before /proc and /sys: "" but in tests. */
#ifndef CCA_PROCESSORS_H
#define CCA_PROCESSORS_H

/* Hardware threads. */
int cca_processors(const char *root);
/* Cores, of whose hardware threads one is used. */
int cca_physical_cores(const char *root);

#endif
