/* Messages between ranks: processes, on one machine or several, that compute a prompt together.
 *
 *     cca_comm *comm;
 *     cca_comm_options o = {.kind = "mpi", .stop = stop};
 *     cca_comm_open(&comm, &o, &err);                          // all ranks
 *     cca_mail to = {.rank = 1, .data = rows, .bytes = n};  // on rank 0
 *     cca_exchange *exchange;
 *     cca_comm_begin(&exchange, comm, &to, 1, NULL, 0, &err);
 *     ...                                                      // computes beside it
 *     cca_comm_finish(exchange, &err);
 *     cca_comm_close(comm);
 *
 * Each rank calls the same operations in the same order. Memory is that of the host. Who waits
 * sleeps, a little at a time, so that ranks may share processors, and whoever computes has them.
 *
 * Failures are statuses: CCA_RUNTIME where messages do not arrive, CCA_INTERRUPTED where the stop
 * flag is set and the others did not come to the same place shortly. What is under way is lost
 * then, later operations fail, too, and closing ends the other ranks. Memory of exchanges may be
 * written to until the process ends: nobody frees what he has given to one that was not finished.
 */
#ifndef CCA_COMM_H
#define CCA_COMM_H

#include "base/base.h"

#include <signal.h>

typedef struct cca_comm cca_comm;
typedef struct cca_exchange cca_exchange;
typedef struct cca_backend cca_backend; /* backend.h */

typedef struct cca_comm_options {
    const char *kind;   /* "none": a single rank; "mpi": those that mpirun has started; "nccl":
                           the same, and memory of GPUs goes from one to the other by itself */
    const char *folder; /* where comm_mpi.so lies; NULL: beside the program, or as installed */
    const volatile sig_atomic_t *stop; /* may be NULL; non-zero ends waiting soon. Borrowed */
} cca_comm_options;

typedef struct cca_mail {
    int rank; /* the other one */
    void *data;
    size_t bytes;
} cca_mail;

/* What a rank has done so far. */
typedef struct cca_comm_count {
    uint64_t sent_bytes; /* to others; what all get, once for each of them */
    double waited_s;     /* for others, in operations but cca_comm_listen */
} cca_comm_count;

/* CCA_USAGE for another kind, or where this installation has none; CCA_RUNTIME. A program that
 * opens "mpi" must do so before it has a second thread that sends. */
cca_status cca_comm_open(cca_comm **out, const cca_comm_options *options, cca_error *err);
/* Where an operation has failed, or was not finished, ends all ranks, this one with the status of
 * the failure: the call does not return then. NULL is allowed. */
void cca_comm_close(cca_comm *comm);
/* This rank cannot go on with the others, for a reason of its own: as if an operation had failed.
 */
void cca_comm_give_up(cca_comm *comm, cca_status why);
/* Whether nothing has failed so far. */
bool cca_comm_sound(const cca_comm *comm);
int cca_comm_rank(const cca_comm *comm);
int cca_comm_n_ranks(const cca_comm *comm);
/* Its number among those of this machine. */
int cca_comm_local_rank(const cca_comm *comm);

/* Where a rank is. */
typedef struct cca_comm_seat {
    int64_t machine;    /* the first of the ranks that share its memory */
    uint64_t available; /* bytes there when the ranks began (base/available_memory.h) */
} cca_comm_seat;

/* That of any rank, 0 … n_ranks - 1. */
cca_comm_seat cca_comm_seat_of(const cca_comm *comm, int rank);
cca_comm_count cca_comm_counted(cca_comm *comm);

/* Begins to send and to receive. Between two ranks messages arrive in the order of their calls and,
 * within a call, of the arrays, and have the sizes that the receiver expects. The memory is in use
 * until the exchange is finished, whose owner the caller is; several may be under way. */
cca_status cca_comm_begin(cca_exchange **out, cca_comm *comm, const cca_mail *sends, int n_sends,
                          const cca_mail *receives, int n_receives, cca_error *err);
/* Messages that are under way go on; to be called now and then beside long computations. */
void cca_comm_progress(cca_exchange *exchange);
/* Waits for an exchange, and frees it. NULL is allowed, and is finished. */
cca_status cca_comm_finish(cca_exchange *exchange, cca_error *err);

/* Rank 0's bytes become everybody's. */
cca_status cca_comm_broadcast(cca_comm *comm, void *data, size_t bytes, cca_error *err);
/* The same, of a rank > 0 that has nothing else to do: it may take long. */
cca_status cca_comm_listen(cca_comm *comm, void *data, size_t bytes, cca_error *err);
/* data holds a part of each rank, one behind the other: bytes[rank] bytes, of which each rank has
 * made its own; then all have all. */
cca_status cca_comm_gather(cca_comm *comm, void *data, const size_t *bytes, cca_error *err);
/* The largest of all ranks' values, each by itself. */
cca_status cca_comm_largest(cca_comm *comm, int64_t *values, int n, cca_error *err);
/* All go on, or none does: the worst of all ranks' own statuses, of which err has the message where
 * it is this rank's, else "". Where others are not reached, how that failed. */
cca_status cca_comm_agree(cca_comm *comm, cca_status own, cca_error *err);
/* Waits until all are here. */
cca_status cca_comm_barrier(cca_comm *comm, cca_error *err);

/* ---- memory of devices --------------------------------------------------------------- */

/* The same ranks' communicator for memory of a backend, on another device for each rank; all call
 * it together. It has exchanges alone: cca_comm_begin sends what the backend's operations so far
 * have written, beside those that follow; these see what has come from cca_comm_finish on. Neither
 * waits. Where one of the two has failed both have, and what the device waits for is given up.
 * comm's owner owns it, too. It is that of the last backend it was asked for. *out is NULL where
 * kind is not "nccl" or the backend computes in memory of the host: comm itself sends that.
 * CCA_USAGE, also in a build without NCCL; CCA_RUNTIME. */
cca_status cca_comm_on_device(cca_comm **out, cca_comm *comm, cca_backend *backend, cca_error *err);

/* ---- implementations ----------------------------------------------------------------- */

/* Something that was begun, as the implementation knows it. */
typedef struct cca_pending cca_pending;

/* Beginners return what is pending, NULL where it is done already, and report failures in *status.
 */
typedef struct cca_comm_ops {
    const char *name;
    bool by_itself; /* what is under way needs nobody, and is asked after when it is wanted */
    void (*close)(cca_comm *comm);
    /* Ends all ranks; does not return. */
    void (*abort)(cca_comm *comm, int code);
    cca_pending *(*exchange)(cca_comm *comm, const cca_mail *sends, int n_sends,
                             const cca_mail *receives, int n_receives, cca_status *status,
                             cca_error *err);
    cca_pending *(*broadcast)(cca_comm *comm, void *data, size_t bytes, cca_status *status,
                              cca_error *err);
    cca_pending *(*gather)(cca_comm *comm, void *data, const size_t *bytes, cca_status *status,
                           cca_error *err);
    cca_pending *(*largest)(cca_comm *comm, int64_t *values, int n, cca_status *status,
                            cca_error *err);
    cca_pending *(*barrier)(cca_comm *comm, cca_status *status, cca_error *err);
    /* Whether it is done, and freed then; it is not looked at again after a failure. */
    bool (*done)(cca_comm *comm, cca_pending *pending, cca_status *status, cca_error *err);
    /* These may be NULL. Brings the count up to date; ends what is under way after a failure. */
    void (*tally)(cca_comm *comm);
    void (*abandon)(cca_comm *comm);
} cca_comm_ops;

/* The part that each implementation's own struct begins with. */
struct cca_comm {
    const cca_comm_ops *ops;
    int rank, n_ranks, local_rank;
    int machine;                       /* the first of the ranks that share this one's memory */
    cca_comm_seat *seats;              /* [n_ranks]; NULL: of a communicator over another one */
    const volatile sig_atomic_t *stop; /* may be NULL */
    void *library;                     /* that ops lie in; NULL: the program */
    bool wants_device;                 /* kind "nccl" */
    cca_comm *device;                  /* for memory of devices; NULL: none yet */
    cca_comm_count count;
    int n_under_way;   /* exchanges that nobody has finished */
    cca_status status; /* of the first failure */
};

/* What comm_mpi.so has, under this name. */
#define CCA_COMM_MPI_OPENER "cca_comm_open_mpi"
typedef cca_status (*cca_comm_opener)(cca_comm **out, cca_error *err);
cca_status cca_comm_open_mpi(cca_comm **out, cca_error *err);

/* Over another one, which starts it, hears of its failures and outlives it; use says whose memory
 * it is from now on. A build without NCCL has them, too: opening fails and says so. */
cca_status cca_comm_open_nccl(cca_comm **out, cca_comm *host, cca_backend *backend, cca_error *err);
cca_status cca_comm_use_nccl(cca_comm *comm, cca_backend *backend, cca_error *err);

#endif
