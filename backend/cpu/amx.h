/* Whether AMX's tiles may be used.
 *
 *     if (cca_amx_runs()) use(&cca_kernels_amx); */
#ifndef CCA_AMX_H
#define CCA_AMX_H

#include <stdbool.h>

/* Asks the system for the right to use tiles, which all threads of the process have then, and tries
 * a product. Only where AVX-512 runs. */
bool cca_amx_runs(void);

#endif
