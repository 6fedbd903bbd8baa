/* Messages between GPUs, over NCCL: of a backend's memory, without a way through the host.
 *
 *     stream  | keys of slice 1 | pack | keys of slice 2 | pack | wait | unpack, attention …
 *     own     |                        | to and from others     |
 *
 * Exchanges have a stream of their own, beside the backend's: it begins when what is to be sent has
 * been written, and the backend's waits for it where what has come is wanted. The host waits for
 * neither. MPI starts it and does all else: orders, agreements, counts.
 *
 * The communicator does not block: whoever waits for NCCL itself, which waits for other ranks when
 * it connects them, sees who asks to stop. The library is looked for when it is wanted. */
#include "backend/cuda/device.cuh"

extern "C" {
#include "backend/comm.h"
#include "base/clock.h"
}

#include <dlfcn.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char LIBRARY[] = "libnccl.so.2";

/* How long a rank that is to stop waits for the others, and all at the end for each other. */
static const double GRACE_S = 0.5, FAREWELL_S = 5;

/* An exchange: when its rows have come, and when the backend's stream wanted them. */
struct cca_pending {
    cudaEvent_t begun, come, wanted;
    bool is_wanted;
    cca_pending *next;
};

struct nccl_comm {
    cca_comm base;
    cca_comm *host; /* of the same ranks, for memory of the host */
    cuda_backend *b;
    int device;
    cudaStream_t stream;
    cca_pending *list; /* whose times are not counted yet, the latest first */
    void *library;
    ncclComm_t comm; /* NULL: none yet, or abandoned */
    decltype(&ncclGetUniqueId) unique_id;
    decltype(&ncclCommInitRankConfig) init;
    decltype(&ncclCommGetAsyncError) state;
    decltype(&ncclCommFinalize) finalize;
    decltype(&ncclCommDestroy) destroy;
    decltype(&ncclCommAbort) abort;
    decltype(&ncclGroupStart) group_start;
    decltype(&ncclGroupEnd) group_end;
    decltype(&ncclSend) send;
    decltype(&ncclRecv) recv;
    decltype(&ncclGetErrorString) describe;
    decltype(&ncclGetLastError) last_error;
};

static nccl_comm *nccl_of(cca_comm *comm) {
    return (nccl_comm *)comm;
}

/* ---- the library --------------------------------------------------------------------- */

static bool find_functions(nccl_comm *n) {
    const struct {
        const char *name;
        void *out;
    } list[] = {
        {"ncclGetUniqueId", &n->unique_id},
        {"ncclCommInitRankConfig", &n->init},
        {"ncclCommGetAsyncError", &n->state},
        {"ncclCommFinalize", &n->finalize},
        {"ncclCommDestroy", &n->destroy},
        {"ncclCommAbort", &n->abort},
        {"ncclGroupStart", &n->group_start},
        {"ncclGroupEnd", &n->group_end},
        {"ncclSend", &n->send},
        {"ncclRecv", &n->recv},
        {"ncclGetErrorString", &n->describe},
        {"ncclGetLastError", &n->last_error},
    };
    for (const auto &f : list) {
        void *address = dlsym(n->library, f.name);
        if (!address) return false;
        memcpy(f.out, &address, sizeof address);
    }
    return true;
}

static cca_status load_library(nccl_comm *n, cca_error *err) {
    n->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (n->library && find_functions(n)) return CCA_OK;
    return cca_fail(err, CCA_USAGE,
                    "ranks over NCCL need the library %s (its folder can be named in "
                    "LD_LIBRARY_PATH); or use --ranks mpi",
                    LIBRARY);
}

/* ---- failures and waiting ------------------------------------------------------------ */

static cca_status check_cuda(cudaError_t error, const char *what, cca_error *err) {
    if (error == cudaSuccess) return CCA_OK;
    cudaGetLastError();
    return cca_fail(err, CCA_RUNTIME, "NCCL: %s: %s", what, cudaGetErrorString(error));
}

/* NCCL is through with a call that returned `result`, or has failed, or somebody asked to stop, or
 * so many seconds are over; 0: no bound. */
static cca_status wait_nccl(nccl_comm *n, ncclResult_t result, const char *what, double bound,
                            cca_error *err) {
    const double begin = cca_seconds();
    const volatile sig_atomic_t *stop = n->host->stop;
    double stopped = -1;
    while (result == ncclInProgress && n->comm) {
        const double now = cca_seconds();
        const struct timespec nap = {0, now - begin > 1e-3 ? 100000 : 1000};
        if (stopped < 0 && stop && *stop) stopped = now;
        if (stopped >= 0 && now - stopped > GRACE_S) {
            return cca_fail(err, CCA_INTERRUPTED, "interrupted; other ranks do not answer");
        }
        if (bound > 0 && now - begin > bound) {
            return cca_fail(err, CCA_RUNTIME, "NCCL: %s: other ranks do not answer", what);
        }
        nanosleep(&nap, NULL);
        ncclResult_t asked = n->state(n->comm, &result);
        if (asked != ncclSuccess) result = asked;
    }
    if (result == ncclSuccess) return CCA_OK;
    return cca_fail(err, CCA_RUNTIME, "NCCL: %s: %s: %s", what, n->describe(result),
                    n->comm ? n->last_error(n->comm) : "");
}

/* The host's communicator hears of it, so that nobody waits there for this rank. */
static cca_status fail_both(nccl_comm *n, cca_status status) {
    if (status) cca_comm_give_up(n->host, status);
    return status;
}

/* ---- exchanges ----------------------------------------------------------------------- */

static void pending_free(cca_pending *p) {
    if (p->begun) cudaEventDestroy(p->begun);
    if (p->come) cudaEventDestroy(p->come);
    if (p->wanted) cudaEventDestroy(p->wanted);
    free(p);
}

static cca_pending *pending_new(cca_status *status, cca_error *err) {
    cca_pending *p = (cca_pending *)calloc(1, sizeof *p);
    if (!p) {
        *status = cca_fail(err, CCA_NO_MEMORY, "no memory for messages");
        return NULL;
    }
    cudaError_t error = cudaEventCreate(&p->begun);
    if (error == cudaSuccess) error = cudaEventCreate(&p->come);
    if (error == cudaSuccess) error = cudaEventCreate(&p->wanted);
    *status = check_cuda(error, "event", err);
    if (!*status) return p;
    pending_free(p);
    return NULL;
}

/* Counts how long the backend's stream has waited in exchanges that are over. */
static void nccl_tally(cca_comm *base) {
    nccl_comm *n = nccl_of(base);
    for (cca_pending **at = &n->list; *at;) {
        cca_pending *p = *at;
        float ms = 0;
        if (!p->is_wanted || cudaEventQuery(p->wanted) != cudaSuccess ||
            cudaEventQuery(p->come) != cudaSuccess) {
            at = &p->next;
            continue;
        }
        if (cudaEventElapsedTime(&ms, p->wanted, p->come) == cudaSuccess && ms > 0) {
            n->base.count.waited_s += (double)ms / 1e3;
        }
        *at = p->next;
        pending_free(p);
    }
    cudaGetLastError(); /* that something was not ready */
}

/* One group: all of it is under way at the same time, as messages in both directions have to be. */
static cca_status launch(nccl_comm *n, const cca_mail *sends, int n_sends, const cca_mail *receives,
                         int n_receives, cca_error *err) {
    ncclResult_t result = n->group_start();
    for (int i = 0; i < n_receives && result == ncclSuccess; i++) {
        const cca_mail *m = &receives[i];
        result = n->recv(m->data, m->bytes, ncclInt8, m->rank, n->comm, n->stream);
        if (result == ncclInProgress) result = ncclSuccess; /* asked after at the group's end */
    }
    for (int i = 0; i < n_sends && result == ncclSuccess; i++) {
        const cca_mail *m = &sends[i];
        result = n->send(m->data, m->bytes, ncclInt8, m->rank, n->comm, n->stream);
        if (result == ncclInProgress) result = ncclSuccess;
    }
    const ncclResult_t ended = n->group_end();
    return wait_nccl(n, result == ncclSuccess ? ended : result, "exchange", 0, err);
}

/* After a failure of the backend messages go on, whatever they say: other ranks wait for them, and
 * hear of the failure when all agree. */
static cca_status begin_exchange(nccl_comm *n, cca_pending *p, const cca_mail *sends, int n_sends,
                                 const cca_mail *receives, int n_receives, cca_error *err) {
    cuda_token_run(n->b);
    cudaError_t error = cudaSetDevice(n->device);
    if (error == cudaSuccess) error = cudaEventRecord(p->begun, n->b->stream);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(n->stream, p->begun, 0);
    cca_status status = check_cuda(error, "exchange", err);
    if (!status) status = launch(n, sends, n_sends, receives, n_receives, err);
    if (!status) status = check_cuda(cudaEventRecord(p->come, n->stream), "exchange", err);
    return status;
}

static cca_pending *nccl_exchange(cca_comm *base, const cca_mail *sends, int n_sends,
                                  const cca_mail *receives, int n_receives, cca_status *status,
                                  cca_error *err) {
    nccl_comm *n = nccl_of(base);
    *status = CCA_OK;
    if (n_sends + n_receives == 0) return NULL;
    nccl_tally(base);
    cca_pending *p = pending_new(status, err);
    if (p) *status = begin_exchange(n, p, sends, n_sends, receives, n_receives, err);
    if (p && !*status) {
        p->next = n->list;
        n->list = p;
        return p;
    }
    fail_both(n, *status);
    return NULL;
}

/* All that the backend does from now on comes after it. */
static bool nccl_done(cca_comm *base, cca_pending *p, cca_status *status, cca_error *err) {
    nccl_comm *n = nccl_of(base);
    cuda_token_run(n->b);
    cudaError_t error = cudaSetDevice(n->device);
    if (error == cudaSuccess) error = cudaEventRecord(p->wanted, n->b->stream);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(n->b->stream, p->come, 0);
    p->is_wanted = error == cudaSuccess;
    *status = fail_both(n, check_cuda(error, "exchange", err));
    return !*status;
}

/* ---- opening and closing ------------------------------------------------------------- */

/* What waits on the GPU for ranks that are lost ends, so that its memory can be given back. */
static void nccl_abandon(cca_comm *base) {
    nccl_comm *n = nccl_of(base);
    ncclComm_t comm = n->comm;
    n->comm = NULL;
    if (!comm) return;
    cudaSetDevice(n->device);
    n->abort(comm);
}

/* The library stays, as MPI's do. */
static void nccl_close(cca_comm *base) {
    nccl_comm *n = nccl_of(base);
    cca_error err;
    cudaSetDevice(n->device);
    if (n->comm && wait_nccl(n, n->finalize(n->comm), "end", FAREWELL_S, &err) == CCA_OK) {
        n->destroy(n->comm);
    } else {
        nccl_abandon(base);
    }
    while (n->list) {
        cca_pending *p = n->list;
        n->list = p->next;
        pending_free(p);
    }
    if (n->stream) cudaStreamDestroy(n->stream);
    free(n);
}

static void nccl_abort(cca_comm *base, int code) {
    nccl_comm *n = nccl_of(base);
    n->host->ops->abort(n->host, code);
}

static cca_comm_ops make_ops() {
    cca_comm_ops ops = {};
    ops.name = "nccl";
    ops.by_itself = true;
    ops.close = nccl_close;
    ops.abort = nccl_abort;
    ops.exchange = nccl_exchange;
    ops.done = nccl_done;
    ops.tally = nccl_tally;
    ops.abandon = nccl_abandon;
    return ops;
}

/* All ranks have the library, and a device each. */
static cca_status prepare(nccl_comm *n, cca_error *err) {
    cca_status status = load_library(n, err);
    if (!status) status = check_cuda(cudaSetDevice(n->device), "device", err);
    if (status) return status;
    return check_cuda(cudaStreamCreateWithFlags(&n->stream, cudaStreamNonBlocking), "stream", err);
}

/* Rank 0 makes an id, by which all find each other. */
static cca_status connect(nccl_comm *n, cca_error *err) {
    ncclUniqueId id = {};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    cca_status status = CCA_OK;
    config.blocking = 0;
    if (n->base.rank == 0) status = wait_nccl(n, n->unique_id(&id), "id", 0, err);
    status = cca_comm_agree(n->host, status, err);
    if (!status) status = cca_comm_broadcast(n->host, &id, sizeof id, err);
    if (status) return status;
    ncclResult_t result = n->init(&n->comm, n->base.n_ranks, id, n->base.rank, &config);
    status = wait_nccl(n, result, "start", 0, err);
    return cca_comm_agree(n->host, status, err);
}

extern "C" cca_status cca_comm_open_nccl(cca_comm **out, cca_comm *host, cca_backend *backend,
                                         cca_error *err) {
    static const cca_comm_ops nccl_ops = make_ops();
    *out = NULL;
    nccl_comm *n = (nccl_comm *)calloc(1, sizeof *n);
    cca_status status =
        n ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for messages between devices");
    if (n) {
        n->base.ops = &nccl_ops;
        n->base.rank = host->rank;
        n->base.n_ranks = host->n_ranks;
        n->base.local_rank = host->local_rank;
        n->host = host;
        n->b = cuda_of(backend);
        n->device = n->b->device;
        status = prepare(n, err);
    }
    status = cca_comm_agree(host, status, err);
    if (!status) status = connect(n, err);
    if (!status) {
        *out = &n->base;
        return CCA_OK;
    }
    if (n) {
        nccl_abandon(&n->base);
        nccl_close(&n->base);
    }
    return status;
}

extern "C" cca_status cca_comm_use_nccl(cca_comm *comm, cca_backend *backend, cca_error *err) {
    nccl_comm *n = nccl_of(comm);
    cuda_backend *b = cuda_of(backend);
    if (b->device != n->device) {
        return cca_fail(err, CCA_USAGE, "NCCL: sessions of one run are on one device, cuda:%d",
                        n->device);
    }
    n->b = b;
    return CCA_OK;
}
