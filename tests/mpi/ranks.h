/* What tests that mpirun starts share.
 *
 *     cca_comm *comm = ranks_open();
 *     const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(a_test, comm)};
 *     int failed = cmocka_run_group_tests(tests, NULL, NULL);
 *     cca_comm_close(comm);
 *
 * Each rank runs the same tests in the same order. Where one fails, the others may wait for it:
 * who starts the program bounds its time. */
#ifndef CCA_TEST_RANKS_H
#define CCA_TEST_RANKS_H

#include "backend/comm.h"
#include "base/clock.h"
#include "tests/unit/test.h"

#include <unistd.h>

/* What the environment says, or another word. */
static inline const char *ranks_setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && value[0] ? value : otherwise;
}

/* comm_mpi.so lies in the folder that the environment's CCA_MPI_FOLDER names; CCA_TEST_RANKS is the
 * kind of ranks, mpi where nobody says. */
static inline cca_comm *ranks_open(void) {
    cca_comm *comm;
    cca_error err;
    cca_comm_options o = {.kind = ranks_setting("CCA_TEST_RANKS", "mpi"),
                          .folder = getenv("CCA_MPI_FOLDER")};
    if (cca_comm_open(&comm, &o, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return comm;
}

/* The device that is tested, CCA_TEST_DEVICE or the CPU; of GPUs each rank has its own. */
static inline const char *ranks_device(const cca_comm *comm) {
    static char name[32];
    const char *device = ranks_setting("CCA_TEST_DEVICE", "cpu");
    if (strcmp(device, "cuda") != 0) return device;
    snprintf(name, sizeof name, "cuda:%d", cca_comm_local_rank(comm));
    return name;
}

#endif
