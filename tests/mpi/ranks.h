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

/* comm_mpi.so lies in the folder that the environment's CCA_MPI_FOLDER names. */
static inline cca_comm *ranks_open(void) {
    cca_comm *comm;
    cca_error err;
    cca_comm_options o = {.kind = "mpi", .folder = getenv("CCA_MPI_FOLDER")};
    if (cca_comm_open(&comm, &o, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return comm;
}

#endif
