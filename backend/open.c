/* The devices by name: a further one is a folder and a line here. */
#include "backend/backend.h"

#include <stdlib.h>
#include <string.h>

cca_status cca_backend_open(cca_backend **out, const char *device,
                            const cca_backend_options *options, cca_error *err) {
    *out = NULL;
    if (strcmp(device, "cpu") == 0) return cca_backend_cpu(out, options, err);
    if (strcmp(device, "auto") == 0) {
        if (cca_backend_cuda(out, 0, options, NULL) == CCA_OK) return CCA_OK;
        return cca_backend_cpu(out, options, err);
    }
    if (strcmp(device, "cuda") == 0) return cca_backend_cuda(out, 0, options, err);
    if (strncmp(device, "cuda:", 5) == 0) {
        char *end;
        long index = strtol(device + 5, &end, 10);
        if (end != device + 5 && *end == '\0' && index >= 0 && index < 1024) {
            return cca_backend_cuda(out, (int)index, options, err);
        }
    }
    return cca_fail(err, CCA_USAGE, "device '%s': use auto, cpu, cuda or cuda:N", device);
}
