/* Stands in for the CUDA backend in a build without it. */
#include "backend/cuda/forms.h"

cca_status cca_backend_cuda_with(cca_backend **out, int device, const cca_backend_options *options,
                                 const cca_cuda_forms *forms, cca_error *err) {
    (void)device;
    (void)options;
    (void)forms;
    *out = NULL;
    return cca_fail(err, CCA_USAGE, "this build of cca has no CUDA backend; use --device cpu");
}

cca_status cca_backend_cuda(cca_backend **out, int device, const cca_backend_options *options,
                            cca_error *err) {
    return cca_backend_cuda_with(out, device, options, &(cca_cuda_forms){.wgmma = false}, err);
}
