/* The forms of the CUDA backend: what its tests need beside backend.h.
 *
 *     cca_backend *b;
 *     cca_cuda_forms forms = cca_cuda_all_forms();
 *     forms.wgmma = false;
 *     cca_backend_cuda_with(&b, 0, &options, &forms, &err); */
#ifndef CCA_CUDA_FORMS_H
#define CCA_CUDA_FORMS_H

#include "backend/backend.h"

/* Which of the faster forms may run; cca_backend_cuda allows all. Without them the plainer ones do
 * the same, which tests compare. */
typedef struct cca_cuda_forms {
    bool wgmma;  /* attention of attend_sm90.cu, on Hopper */
    bool early;  /* kernels are put in place while the one before still runs, on Hopper and newer */
    bool stream; /* the steps of a token in one kernel (token.cu), on Hopper and newer */
    bool fused;  /* operations of layer_parts.cu, pooling of pool.cu */
    /* Lanes of a warp begin the copies of a token's weights together, and not in turn. racecheck of
     * compute-sanitizer takes a copy that several lanes begin for one of a single lane, and sees
     * races where each lane has waited for its own stage. */
    bool together;
    int patience; /* seconds that who has asked to stop waits for the device at most */
    int failing;  /* which allocation of memory on the device fails, the first is 1; 0: none */
} cca_cuda_forms;

/* As cca_backend_cuda has them. */
static inline cca_cuda_forms cca_cuda_all_forms(void) {
    cca_cuda_forms all = {true, true, true, true, true, 30, 0};
    return all;
}

/* cca_backend_cuda with these. */
cca_status cca_backend_cuda_with(cca_backend **out, int device, const cca_backend_options *options,
                                 const cca_cuda_forms *forms, cca_error *err);

#endif
