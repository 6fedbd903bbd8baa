/* What other devices can have the CPU do.
 *
 *     ops.mass = cca_mass_on_host; */
#ifndef CCA_MASS_H
#define CCA_MASS_H

#include "backend/backend.h"

/* cca_attend_mass for a device that has no operation of its own: the keys are copied to host
 * memory, which is slow. */
void cca_mass_on_host(cca_backend *b, const cca_mass *mass, const cca_spans *spans,
                      const cca_matrix *q, int64_t row, int64_t pos);

#endif
