/* What evaluating tokens takes by the definition of attention: operations, and bytes of the cache.
 *
 *     cca_work_count w = cca_count_work(&config, &state_options, pos, n, 1);
 */
#ifndef CCA_WORK_H
#define CCA_WORK_H

#include "model.h"

typedef struct cca_work_count {
    double products, attention; /* operations; a multiply-add is two */
    double cache_bytes;
} cca_work_count;

/* Of n tokens from position pos on, with the logits of n_logits of them. */
cca_work_count cca_count_work(const cca_config *config, const cca_state_options *options,
                              int64_t pos, int64_t n, int64_t n_logits);

#endif
