/* Ranks that mpirun has started. Made into a library of its own, comm_mpi.so, which is loaded where
 * somebody asks for it, so that the program itself needs no MPI. Everything is begun and then asked
 * after: MPI's own waiting takes a whole processor. */
#include "backend/comm.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>

/* MPI counts in ints: longer messages are sent in pieces, longer broadcasts in turn. */
static const size_t PIECE = (size_t)1 << 30;

enum { TAG = 25 };

/* What all ranks do together happens in memory of its own and is copied from and to the caller's:
 * after a failure MPI may still write there, while the caller, which has been told, goes on. What
 * has failed is therefore never freed; the process ends soon. */
struct cca_pending {
    char *data; /* that memory; NULL: an exchange, in the callers' */
    void *out;  /* where it goes in the end; NULL: nowhere */
    size_t bytes;
    int *sizes; /* of a gather's parts, and where they begin; else NULL */
    int n;
    MPI_Request requests[];
};

static cca_pending *pending_new(size_t n, cca_status *status, cca_error *err) {
    cca_pending *p = n < 1 << 20 ? calloc(1, sizeof *p + n * sizeof(MPI_Request)) : NULL;
    if (!p) *status = cca_fail(err, CCA_NO_MEMORY, "no memory for %zu messages", n);
    return p;
}

static void pending_free(cca_pending *p) {
    free(p->data);
    free(p->sizes);
    free(p);
}

/* With memory of its own, which holds what `in` does. */
static cca_pending *pending_with(size_t n, const void *in, void *out, size_t bytes,
                                 cca_status *status, cca_error *err) {
    cca_pending *p = pending_new(n, status, err);
    if (!p) return NULL;
    p->data = malloc(bytes + 1);
    p->out = out;
    p->bytes = bytes;
    if (p->data) {
        memcpy(p->data, in, bytes);
        return p;
    }
    *status = cca_fail(err, CCA_NO_MEMORY, "no memory for a message of %zu bytes", bytes);
    pending_free(p);
    return NULL;
}

/* A code of MPI's in words. */
static cca_status check(int code, const char *what, cca_error *err) {
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int n = 0;
    if (code == MPI_SUCCESS) return CCA_OK;
    MPI_Error_string(code, text, &n);
    return cca_fail(err, CCA_RUNTIME, "MPI: %s: %.*s", what, n, text);
}

/* What was begun, or nothing after a failure: parts of it may be under way then. */
static cca_pending *begun(cca_pending *p, int code, const char *what, cca_status *status,
                          cca_error *err) {
    *status = check(code, what, err);
    return *status ? NULL : p;
}

static size_t n_pieces(const cca_mail *m, int n) {
    size_t pieces = 0;
    for (int i = 0; i < n; i++) pieces += (m[i].bytes + PIECE - 1) / PIECE;
    return pieces;
}

static size_t piece_at(const cca_mail *m, size_t at) {
    return m->bytes - at < PIECE ? m->bytes - at : PIECE;
}

static cca_pending *mpi_exchange(cca_comm *comm, const cca_mail *sends, int n_sends,
                                 const cca_mail *receives, int n_receives, cca_status *status,
                                 cca_error *err) {
    (void)comm;
    int code = MPI_SUCCESS;
    size_t n = n_pieces(sends, n_sends) + n_pieces(receives, n_receives);
    cca_pending *p = pending_new(n, status, err);
    if (!p) return NULL;
    for (int i = 0; i < n_receives && !code; i++) {
        const cca_mail *m = &receives[i];
        for (size_t at = 0; at < m->bytes && !code; at += PIECE) {
            code = MPI_Irecv((char *)m->data + at, (int)piece_at(m, at), MPI_BYTE, m->rank, TAG,
                             MPI_COMM_WORLD, &p->requests[p->n++]);
        }
    }
    for (int i = 0; i < n_sends && !code; i++) {
        const cca_mail *m = &sends[i];
        for (size_t at = 0; at < m->bytes && !code; at += PIECE) {
            code = MPI_Isend((char *)m->data + at, (int)piece_at(m, at), MPI_BYTE, m->rank, TAG,
                             MPI_COMM_WORLD, &p->requests[p->n++]);
        }
    }
    return begun(p, code, "exchange", status, err);
}

static cca_pending *mpi_broadcast(cca_comm *comm, void *data, size_t bytes, cca_status *status,
                                  cca_error *err) {
    const cca_mail all = {.data = data, .bytes = bytes};
    int code = MPI_SUCCESS;
    void *out = comm->rank > 0 ? data : NULL;
    cca_pending *p = pending_with(n_pieces(&all, 1), data, out, bytes, status, err);
    for (size_t at = 0; p && at < bytes && !code; at += PIECE) {
        code = MPI_Ibcast(p->data + at, (int)piece_at(&all, at), MPI_BYTE, 0, MPI_COMM_WORLD,
                          &p->requests[p->n++]);
    }
    return p ? begun(p, code, "broadcast", status, err) : NULL;
}

static cca_pending *mpi_gather(cca_comm *comm, void *data, const size_t *bytes, cca_status *status,
                               cca_error *err) {
    size_t total = 0, n = (size_t)comm->n_ranks;
    for (size_t i = 0; i < n; i++) total += bytes[i];
    if (total > PIECE) {
        *status = cca_fail(err, CCA_RUNTIME, "MPI: gather: %zu bytes are too many", total);
        return NULL;
    }
    cca_pending *p = pending_with(1, data, data, total, status, err);
    if (!p) return NULL;
    p->sizes = calloc(2 * n, sizeof *p->sizes);
    if (!p->sizes) {
        *status = cca_fail(err, CCA_NO_MEMORY, "no memory for %zu parts", n);
        pending_free(p);
        return NULL;
    }
    int *begins = p->sizes + n, begin = 0;
    for (size_t i = 0; i < n; i++) {
        p->sizes[i] = (int)bytes[i];
        begins[i] = begin;
        begin += (int)bytes[i];
    }
    p->n = 1;
    int code = MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, p->data, p->sizes, begins, MPI_BYTE,
                               MPI_COMM_WORLD, p->requests);
    return begun(p, code, "gather", status, err);
}

static cca_pending *mpi_largest(cca_comm *comm, int64_t *values, int n, cca_status *status,
                                cca_error *err) {
    (void)comm;
    size_t bytes = (size_t)n * sizeof *values;
    cca_pending *p = pending_with(1, values, values, bytes, status, err);
    if (!p) return NULL;
    p->n = 1;
    int code =
        MPI_Iallreduce(MPI_IN_PLACE, p->data, n, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD, p->requests);
    return begun(p, code, "largest", status, err);
}

static cca_pending *mpi_barrier(cca_comm *comm, cca_status *status, cca_error *err) {
    (void)comm;
    cca_pending *p = pending_new(1, status, err);
    if (!p) return NULL;
    p->n = 1;
    return begun(p, MPI_Ibarrier(MPI_COMM_WORLD, p->requests), "barrier", status, err);
}

static bool mpi_done(cca_comm *comm, cca_pending *p, cca_status *status, cca_error *err) {
    (void)comm;
    int done = 0;
    *status = check(MPI_Testall(p->n, p->requests, &done, MPI_STATUSES_IGNORE), "waiting", err);
    if (*status || !done) return false;
    if (p->out) memcpy(p->out, p->data, p->bytes);
    pending_free(p);
    return true;
}

static void mpi_abort(cca_comm *comm, int code) {
    (void)comm;
    MPI_Abort(MPI_COMM_WORLD, code);
    _Exit(code);
}

static void mpi_close(cca_comm *comm) {
    MPI_Finalize();
    free(comm);
}

static const cca_comm_ops ops = {.name = "mpi",
                                 .close = mpi_close,
                                 .abort = mpi_abort,
                                 .exchange = mpi_exchange,
                                 .broadcast = mpi_broadcast,
                                 .gather = mpi_gather,
                                 .largest = mpi_largest,
                                 .barrier = mpi_barrier,
                                 .done = mpi_done};

/* The ranks that share memory are those of a machine. */
static int find_machine(cca_comm *comm) {
    MPI_Comm machine = MPI_COMM_NULL;
    comm->machine = comm->rank;
    int code =
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
    if (!code) code = MPI_Comm_rank(machine, &comm->local_rank);
    if (!code) code = MPI_Bcast(&comm->machine, 1, MPI_INT, 0, machine);
    if (!code) code = MPI_Comm_free(&machine);
    return code;
}

cca_status cca_comm_open_mpi(cca_comm **out, cca_error *err) {
    int there = 0, provided = 0;
    cca_comm *comm = calloc(1, sizeof *comm);
    *out = NULL;
    if (!comm) return cca_fail(err, CCA_NO_MEMORY, "no memory for a rank");
    MPI_Initialized(&there);
    int code = there ? MPI_SUCCESS : MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (!code) code = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (!code) code = MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank);
    if (!code) code = MPI_Comm_size(MPI_COMM_WORLD, &comm->n_ranks);
    if (!code) code = find_machine(comm);
    comm->ops = &ops;
    cca_status status = check(code, "start", err);
    if (status) {
        free(comm);
        return status;
    }
    *out = comm;
    return CCA_OK;
}
