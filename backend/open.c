/* The devices by name: a further one is a folder and a line here. */
#include "backend/backend.h"

#include <stdlib.h>
#include <string.h>

/* The N of "auto:N" and "cuda:N", 0 where there is none; -1: another device. */
static int number_of(const char *device, const char *kind) {
    size_t n = strlen(kind);
    char *end;
    if (strncmp(device, kind, n) != 0) return -1;
    if (device[n] == '\0') return 0;
    if (device[n] != ':') return -1;
    long index = strtol(device + n + 1, &end, 10);
    return end != device + n + 1 && *end == '\0' && index >= 0 && index < 1024 ? (int)index : -1;
}

cca_status cca_backend_open(cca_backend **out, const char *device,
                            const cca_backend_options *options, cca_error *err) {
    const int of_auto = number_of(device, "auto"), of_cuda = number_of(device, "cuda");
    *out = NULL;
    if (strcmp(device, "cpu") == 0) return cca_backend_cpu(out, options, err);
    if (of_auto >= 0) {
        if (cca_backend_cuda(out, of_auto, options, NULL) == CCA_OK) return CCA_OK;
        return cca_backend_cpu(out, options, err);
    }
    if (of_cuda >= 0) return cca_backend_cuda(out, of_cuda, options, err);
    return cca_fail(err, CCA_USAGE, "device '%s': use auto, cpu, cuda or cuda:N", device);
}
