/* Stands in for the CUDA backend in a build without it. */
#include "backend.h"

cca_status cca_backend_cuda(cca_backend **out, int device, const cca_backend_options *options,
                            cca_error *err) {
    (void)device;
    (void)options;
    *out = NULL;
    return cca_fail(err, CCA_USAGE, "this build of cca has no CUDA backend; use --device cpu");
}
