#include "backend/comm.h"

#include "backend/backend.h"
#include "base/available_memory.h"
#include "base/clock.h"
#include "base/stop_flag.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char MPI_FILE[] = "comm_mpi.so";

/* How long a rank that is to stop waits for the others to hear of it, and a nap at most. */
static const double GRACE_S = 0.5, LONGEST_NAP_S = 0.002;

struct cca_exchange {
    cca_comm *comm;
    cca_pending *pending;
};

/* ---- a single rank ------------------------------------------------------------------- */

static void none_close(cca_comm *comm) {
    free(comm);
}

static void none_abort(cca_comm *comm, int code) {
    (void)comm;
    exit(code);
}

static cca_pending *none_exchange(cca_comm *comm, const cca_mail *sends, int n_sends,
                                  const cca_mail *receives, int n_receives, cca_status *status,
                                  cca_error *err) {
    (void)comm, (void)sends, (void)receives;
    if (n_sends + n_receives > 0) {
        *status = cca_fail(err, CCA_RUNTIME, "a message to a rank in a world of one");
    }
    return NULL;
}

static cca_pending *none_broadcast(cca_comm *comm, void *data, size_t bytes, cca_status *status,
                                   cca_error *err) {
    (void)comm, (void)data, (void)bytes, (void)status, (void)err;
    return NULL;
}

static cca_pending *none_gather(cca_comm *comm, void *data, const size_t *bytes, cca_status *status,
                                cca_error *err) {
    (void)comm, (void)data, (void)bytes, (void)status, (void)err;
    return NULL;
}

static cca_pending *none_largest(cca_comm *comm, int64_t *values, int n, cca_status *status,
                                 cca_error *err) {
    (void)comm, (void)values, (void)n, (void)status, (void)err;
    return NULL;
}

static cca_pending *none_barrier(cca_comm *comm, cca_status *status, cca_error *err) {
    (void)comm, (void)status, (void)err;
    return NULL;
}

static const cca_comm_ops none_ops = {.name = "none",
                                      .close = none_close,
                                      .abort = none_abort,
                                      .exchange = none_exchange,
                                      .broadcast = none_broadcast,
                                      .gather = none_gather,
                                      .largest = none_largest,
                                      .barrier = none_barrier};

static cca_status open_none(cca_comm **out, cca_error *err) {
    *out = calloc(1, sizeof **out);
    if (!*out) return cca_fail(err, CCA_NO_MEMORY, "no memory for a rank");
    (*out)->ops = &none_ops;
    (*out)->n_ranks = 1;
    return CCA_OK;
}

/* ---- the library of MPI -------------------------------------------------------------- */

enum { LONGEST_PATH = 4096 };

/* The library in a place relative to a folder; global, since MPI has libraries of its own that look
 * for its symbols. */
static void *load_from(const char *folder, const char *place) {
    char path[LONGEST_PATH];
    int n = snprintf(path, sizeof path, "%s%s/%s", folder, place, MPI_FILE);
    return n < LONGEST_PATH ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;
}

/* Beside a file, or where it is installed for a program and for libcca.so. */
static void *load_beside(const char *file) {
    static const char *const places[] = {"", "/cca", "/../lib/cca"};
    char folder[LONGEST_PATH];
    const char *slash = strrchr(file, '/');
    void *library = NULL;
    if (!slash || slash - file >= LONGEST_PATH) return NULL;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - file), file);
    for (size_t i = 0; !library && i < sizeof places / sizeof *places; i++) {
        library = load_from(folder, places[i]);
    }
    return library;
}

/* Beside the program, or libcca.so where this code is linked into that. */
static void *load_library(const char *folder) {
    char program[LONGEST_PATH] = "";
    Dl_info own;
    if (folder) return load_from(folder, "");
    void *library = dladdr(&none_ops, &own) && own.dli_fname ? load_beside(own.dli_fname) : NULL;
    if (library || readlink("/proc/self/exe", program, sizeof program - 1) < 0) return library;
    return load_beside(program);
}

static cca_status open_mpi(cca_comm **out, const char *folder, cca_error *err) {
    void *library = load_library(folder);
    cca_comm_opener opener = NULL;
    if (library) *(void **)&opener = dlsym(library, CCA_COMM_MPI_OPENER);
    if (!opener) {
        const char *why = dlerror();
        return cca_fail(err, CCA_USAGE, "ranks over MPI need %s, which is built where MPI is: %s",
                        MPI_FILE, why ? why : "not found");
    }
    cca_status status = opener(out, err);
    if (!status) (*out)->library = library;
    return status;
}

/* ---- opening ------------------------------------------------------------------------- */

/* Each rank tells where it is. */
static cca_status take_seats(cca_comm *comm, cca_error *err) {
    const size_t n = (size_t)comm->n_ranks;
    size_t *bytes = calloc(n, sizeof *bytes);
    comm->seats = calloc(n, sizeof *comm->seats);
    cca_status status = bytes && comm->seats ? CCA_OK : CCA_NO_MEMORY;
    if (status) cca_fail(err, status, "no memory for %zu ranks", n);
    for (size_t i = 0; i < n && !status; i++) bytes[i] = sizeof *comm->seats;
    if (!status) {
        comm->seats[comm->rank] = (cca_comm_seat){comm->machine, cca_memory_available("")};
        status = cca_comm_gather(comm, comm->seats, bytes, err);
    }
    free(bytes);
    comm->count = (cca_comm_count){0};
    return status;
}

cca_status cca_comm_open(cca_comm **out, const cca_comm_options *options, cca_error *err) {
    cca_status status;
    *out = NULL;
    const bool nccl = strcmp(options->kind, "nccl") == 0;
    if (strcmp(options->kind, "none") == 0) {
        status = open_none(out, err);
    } else if (nccl || strcmp(options->kind, "mpi") == 0) {
        status = open_mpi(out, options->folder, err);
    } else {
        status = cca_fail(err, CCA_USAGE, "ranks over '%s': use none, mpi or nccl", options->kind);
    }
    if (!*out) return status;
    (*out)->stop = options->stop;
    (*out)->wants_device = nccl;
    status = take_seats(*out, err);
    if (!status) return CCA_OK;
    cca_comm_give_up(*out, status);
    cca_comm_close(*out);
    *out = NULL;
    return status;
}

/* The library stays: MPI's own do not bear to be taken out. */
void cca_comm_close(cca_comm *comm) {
    if (!comm) return;
    if (comm->n_under_way > 0 && !comm->status) comm->status = CCA_RUNTIME;
    if (comm->status) comm->ops->abort(comm, (int)comm->status);
    if (comm->device) comm->device->ops->close(comm->device);
    free(comm->seats);
    comm->ops->close(comm);
}

int cca_comm_rank(const cca_comm *comm) {
    return comm->rank;
}

int cca_comm_n_ranks(const cca_comm *comm) {
    return comm->n_ranks;
}

int cca_comm_local_rank(const cca_comm *comm) {
    return comm->local_rank;
}

cca_comm_seat cca_comm_seat_of(const cca_comm *comm, int rank) {
    return comm->seats[rank];
}

cca_comm_count cca_comm_counted(cca_comm *comm) {
    if (comm->ops->tally) comm->ops->tally(comm);
    cca_comm_count count = comm->count;
    if (comm->device) {
        cca_comm_count of_device = cca_comm_counted(comm->device);
        count.sent_bytes += of_device.sent_bytes;
        count.waited_s += of_device.waited_s;
    }
    return count;
}

cca_status cca_comm_on_device(cca_comm **out, cca_comm *comm, cca_backend *backend,
                              cca_error *err) {
    cca_status status = CCA_OK;
    *out = NULL;
    if (!comm->wants_device || !backend->ops->alloc_host) return CCA_OK;
    if (!comm->device) {
        status = cca_comm_open_nccl(&comm->device, comm, backend, err);
        if (!status) comm->device->stop = comm->stop;
    }
    if (!status) status = cca_comm_use_nccl(comm->device, backend, err);
    if (!status) *out = comm->device;
    return status;
}

/* ---- waiting ------------------------------------------------------------------------- */

/* The first failure stays. */
static cca_status keep(cca_comm *comm, cca_status status) {
    if (!status || comm->status) return status;
    comm->status = status;
    if (comm->ops->abandon) comm->ops->abandon(comm);
    if (comm->device) (void)keep(comm->device, status);
    return status;
}

void cca_comm_give_up(cca_comm *comm, cca_status why) {
    (void)keep(comm, why);
}

bool cca_comm_sound(const cca_comm *comm) {
    return !comm->status;
}

static cca_status check_sound(const cca_comm *comm, cca_error *err) {
    if (!comm->status) return CCA_OK;
    return cca_fail(err, comm->status, "the ranks have lost each other");
}

static void nap(double seconds) {
    struct timespec t = {.tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&t, NULL);
}

/* Naps are an eighth of the time waited so far: short waits are not made much longer. */
static cca_status wait_for(cca_comm *comm, cca_pending *pending, bool counts, cca_error *err) {
    double begin = cca_seconds(), stopped = -1;
    cca_status status = CCA_OK;
    while (pending && !comm->ops->done(comm, pending, &status, err) && !status) {
        double now = cca_seconds();
        if (stopped < 0 && cca_stop_asked(comm->stop)) stopped = now;
        if (stopped >= 0 && now - stopped > GRACE_S) {
            status = cca_fail(err, CCA_INTERRUPTED, "interrupted; other ranks do not answer");
            break;
        }
        double seconds = (now - begin) / 8;
        if (seconds > 1e-5) nap(seconds < LONGEST_NAP_S ? seconds : LONGEST_NAP_S);
    }
    if (counts && pending) comm->count.waited_s += cca_seconds() - begin;
    return keep(comm, status);
}

/* What is pending once it was begun without failure. */
static cca_status wait_begun(cca_comm *comm, cca_pending *pending, cca_status begun,
                             cca_error *err) {
    return begun ? keep(comm, begun) : wait_for(comm, pending, true, err);
}

/* ---- operations ---------------------------------------------------------------------- */

cca_status cca_comm_begin(cca_exchange **out, cca_comm *comm, const cca_mail *sends, int n_sends,
                          const cca_mail *receives, int n_receives, cca_error *err) {
    *out = NULL;
    cca_status status = check_sound(comm, err);
    if (status) return status;
    cca_exchange *e = calloc(1, sizeof *e);
    if (!e) return keep(comm, cca_fail(err, CCA_NO_MEMORY, "no memory for messages"));
    e->comm = comm;
    e->pending = comm->ops->exchange(comm, sends, n_sends, receives, n_receives, &status, err);
    if (status) {
        free(e);
        return keep(comm, status);
    }
    for (int i = 0; i < n_sends; i++) comm->count.sent_bytes += sends[i].bytes;
    comm->n_under_way++;
    *out = e;
    return CCA_OK;
}

void cca_comm_progress(cca_exchange *exchange) {
    cca_error err;
    if (!exchange || !exchange->pending || exchange->comm->status) return;
    cca_comm *comm = exchange->comm;
    cca_status status = CCA_OK;
    if (comm->ops->by_itself) return;
    if (comm->ops->done(comm, exchange->pending, &status, &err)) exchange->pending = NULL;
    (void)keep(comm, status);
}

cca_status cca_comm_finish(cca_exchange *exchange, cca_error *err) {
    if (!exchange) return CCA_OK;
    cca_comm *comm = exchange->comm;
    cca_status status = check_sound(comm, err);
    if (!status) status = wait_for(comm, exchange->pending, true, err);
    if (!status) comm->n_under_way--;
    free(exchange);
    return status;
}

cca_status cca_comm_broadcast(cca_comm *comm, void *data, size_t bytes, cca_error *err) {
    cca_status status = check_sound(comm, err);
    if (status) return status;
    if (comm->rank == 0) comm->count.sent_bytes += bytes * (size_t)(comm->n_ranks - 1);
    cca_pending *p = comm->ops->broadcast(comm, data, bytes, &status, err);
    return wait_begun(comm, p, status, err);
}

cca_status cca_comm_listen(cca_comm *comm, void *data, size_t bytes, cca_error *err) {
    cca_status status = check_sound(comm, err);
    if (status) return status;
    cca_pending *p = comm->ops->broadcast(comm, data, bytes, &status, err);
    return status ? keep(comm, status) : wait_for(comm, p, false, err);
}

cca_status cca_comm_gather(cca_comm *comm, void *data, const size_t *bytes, cca_error *err) {
    cca_status status = check_sound(comm, err);
    if (status) return status;
    comm->count.sent_bytes += bytes[comm->rank] * (size_t)(comm->n_ranks - 1);
    cca_pending *p = comm->ops->gather(comm, data, bytes, &status, err);
    return wait_begun(comm, p, status, err);
}

cca_status cca_comm_largest(cca_comm *comm, int64_t *values, int n, cca_error *err) {
    cca_status status = check_sound(comm, err);
    if (status) return status;
    comm->count.sent_bytes += (size_t)n * sizeof *values * (size_t)(comm->n_ranks - 1);
    cca_pending *p = comm->ops->largest(comm, values, n, &status, err);
    return wait_begun(comm, p, status, err);
}

cca_status cca_comm_agree(cca_comm *comm, cca_status own, cca_error *err) {
    cca_error lost;
    int64_t worst = own;
    cca_status status = cca_comm_largest(comm, &worst, 1, own ? &lost : err);
    if (own || status) return own ? own : status;
    return worst == 0 ? CCA_OK : cca_fail(err, (cca_status)worst, "%s", "");
}

cca_status cca_comm_barrier(cca_comm *comm, cca_error *err) {
    cca_status status = check_sound(comm, err);
    if (status) return status;
    cca_pending *p = comm->ops->barrier(comm, &status, err);
    return wait_begun(comm, p, status, err);
}
