/* How long something takes.
 *
 *     double begin = cca_seconds();
 *     ...
 *     printf("%.3f s\n", cca_seconds() - begin);
 *
 * Only differences mean something. Any thread may ask; neither clock fails or goes back. */
#ifndef CCA_CLOCK_H
#define CCA_CLOCK_H

/* Seconds that pass, whatever is done to the time of day. */
double cca_seconds(void);

/* Seconds of all processors together that this process has used. */
double cca_cpu_seconds(void);

#endif
