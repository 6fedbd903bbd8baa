/* Stands in for NCCL in a build without it. */
#include "backend/comm.h"

cca_status cca_comm_open_nccl(cca_comm **out, cca_comm *host, cca_backend *backend,
                              cca_error *err) {
    (void)host, (void)backend;
    *out = NULL;
    return cca_fail(err, CCA_USAGE, "this build of cca has no NCCL; use --ranks mpi");
}

cca_status cca_comm_use_nccl(cca_comm *comm, cca_backend *backend, cca_error *err) {
    (void)comm, (void)backend;
    return cca_fail(err, CCA_USAGE, "this build of cca has no NCCL; use --ranks mpi");
}
