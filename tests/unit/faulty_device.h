/* A device of tests: the CPU's operations, one call of which does harm. It stands in the program's
 * list of devices under every name, in place of backend/open.c, which is not linked then.
 *
 *     faulty_device = &(faulty){.fault = FAULT_NAN, .at = 17};   // the 17th call of an operation
 *     ... cca_engine_open, cca_session_eval ...
 *     faulty_device->n_calls                                      // made so far
 *
 * Calls are counted over all backends of the process. */
#ifndef CCA_TEST_FAULTY_DEVICE_H
#define CCA_TEST_FAULTY_DEVICE_H

#include "backend/backend.h"
#include "base/stop_flag.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef enum fault_kind {
    FAULT_NONE,
    FAULT_FAILS,     /* the call does nothing and fails */
    FAULT_NO_MEMORY, /* for want of memory */
    FAULT_LOST,      /* and the device answers no more */
    FAULT_NAN,       /* all that it writes is no number */
    FAULT_WAITS,     /* it does not come back before it is to stop */
    FAULT_HANGS,     /* nor then; after a moment it is given up, as a GPU is after 30 seconds */
} fault_kind;

static const char FAULT_TEXT[] = "the device of tests: call %ld, %s, %s";

typedef struct faulty {
    fault_kind fault;
    long at;             /* the call that does harm, from 1 on */
    atomic_long n_calls; /* so far */
    atomic_int stalled;  /* the call does not come back */
    bool deaf;           /* the backend that stalls is told of no stop */
    char name[24];       /* of the operation that does harm */
} faulty;

static faulty *faulty_device;
static const cca_ops *faulty_cpu; /* the operations that are wrapped */

/* ---- faults ---------------------------------------------------------------------------- */

static void faulty_stall(cca_backend *b, const char *name) {
    faulty *f = faulty_device;
    f->deaf = !b->stop;
    atomic_store(&f->stalled, 1);
    while (!cca_stop_asked(b->stop)) usleep(500);
    if (f->fault == FAULT_WAITS) {
        cca_backend_fail(b, CCA_INTERRUPTED, "interrupted");
        return;
    }
    usleep(5000);
    b->lost = true;
    cca_backend_fail(b, CCA_RUNTIME, FAULT_TEXT, f->at, name, "has not answered");
}

/* Counts a call; false: it is not to be carried out. */
static bool faulty_runs(cca_backend *b, const char *name) {
    faulty *f = faulty_device;
    if (atomic_fetch_add(&f->n_calls, 1) + 1 != f->at || f->fault == FAULT_NONE) return true;
    snprintf(f->name, sizeof f->name, "%s", name);
    if (f->fault == FAULT_NAN) return true;
    if (f->fault == FAULT_WAITS || f->fault == FAULT_HANGS) {
        faulty_stall(b, name);
    } else if (f->fault == FAULT_NO_MEMORY) {
        cca_backend_fail(b, CCA_NO_MEMORY, FAULT_TEXT, f->at, name, "has no memory");
    } else {
        b->lost = f->fault == FAULT_LOST;
        cca_backend_fail(b, CCA_RUNTIME, FAULT_TEXT, f->at, name, "fails");
    }
    return false;
}

/* Whether what the call under way has written becomes no number. */
static bool faulty_spoils(void) {
    return faulty_device->fault == FAULT_NAN &&
           atomic_load(&faulty_device->n_calls) == faulty_device->at;
}

/* All ones are no number as f32, f16 and bf16, and so is the scale of a block. */
static void spoil_bytes(void *data, size_t bytes) {
    if (faulty_spoils()) memset(data, 0xff, bytes);
}

static void spoil_matrix(const cca_matrix *m, int64_t n) {
    spoil_bytes(m->data, (size_t)(n * m->cols) * sizeof(float));
}

static void spoil_side(void *data, cca_dtype type, const cca_rows *r, int64_t pos, int64_t n) {
    size_t width = 0;
    cca_dtype_row_bytes(&width, type, r->head_dim);
    for (int64_t i = 0; i < r->heads * n; i++) {
        int64_t row = i / n * r->capacity + cca_rows_at(r, pos + i % n);
        spoil_bytes((char *)data + (size_t)row * width, width);
    }
}

static void spoil_rows(const cca_rows *r, int64_t pos, int64_t n) {
    if (!faulty_spoils()) return;
    spoil_side(r->k, r->k_type, r, pos, n);
    spoil_side(r->v, r->v_type, r, pos, n);
}

/* ---- operations ------------------------------------------------------------------------ */

static void *faulty_alloc(cca_backend *b, size_t bytes) {
    return faulty_runs(b, "alloc") ? faulty_cpu->alloc(b, bytes) : NULL;
}

static void *faulty_load(cca_backend *b, const cca_matrix *shape, const void *host, size_t bytes,
                         bool *owned) {
    return faulty_runs(b, "load") ? faulty_cpu->load(b, shape, host, bytes, owned) : NULL;
}

static void faulty_upload(cca_backend *b, void *out, const void *host, size_t bytes) {
    if (!faulty_runs(b, "upload")) return;
    faulty_cpu->upload(b, out, host, bytes);
    spoil_bytes(out, bytes);
}

static void faulty_download(cca_backend *b, void *host, const void *data, size_t bytes) {
    if (!faulty_runs(b, "download")) return;
    faulty_cpu->download(b, host, data, bytes);
    spoil_bytes(host, bytes);
}

static cca_status faulty_sync(cca_backend *b, cca_error *err) {
    if (faulty_runs(b, "sync")) return faulty_cpu->sync(b, err);
    return cca_fail(err, b->status, "%s", b->error.text);
}

static void faulty_embed(cca_backend *b, cca_matrix *out, const cca_matrix *table,
                         const int32_t *ids, float scale, int64_t n) {
    if (!faulty_runs(b, "embed")) return;
    faulty_cpu->embed(b, out, table, ids, scale, n);
    spoil_matrix(out, n);
}

static void faulty_rmsnorm(cca_backend *b, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                           const cca_matrix *weight, float eps, int64_t n) {
    if (!faulty_runs(b, "rmsnorm")) return;
    faulty_cpu->rmsnorm(b, out, x, x_row, weight, eps, n);
    spoil_matrix(out, n);
}

static void faulty_matmul(cca_backend *b, const cca_product *products, int n_products,
                          const cca_matrix *x, int64_t n) {
    if (!faulty_runs(b, "matmul")) return;
    faulty_cpu->matmul(b, products, n_products, x, n);
    for (int i = 0; i < n_products; i++) spoil_matrix(products[i].out, n);
}

static void faulty_angles(cca_backend *b, cca_matrix *out, const cca_rope *rope, int64_t pos,
                          int64_t n) {
    if (!faulty_runs(b, "angles")) return;
    faulty_cpu->angles(b, out, rope, pos, n);
    spoil_matrix(out, n);
}

static void faulty_rotate(cca_backend *b, cca_matrix *x, const cca_matrix *angles,
                          const cca_rope *rope, int64_t n) {
    if (!faulty_runs(b, "rotate")) return;
    faulty_cpu->rotate(b, x, angles, rope, n);
    spoil_matrix(x, n);
}

static void faulty_swiglu(cca_backend *b, cca_matrix *gate, const cca_matrix *up, int64_t n) {
    if (!faulty_runs(b, "swiglu")) return;
    faulty_cpu->swiglu(b, gate, up, n);
    spoil_matrix(gate, n);
}

static void faulty_accumulate(cca_backend *b, cca_matrix *x, const cca_matrix *y, int64_t n) {
    if (!faulty_runs(b, "accumulate")) return;
    faulty_cpu->accumulate(b, x, y, n);
    spoil_matrix(x, n);
}

static void faulty_store(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                         int64_t pos, int64_t n) {
    if (!faulty_runs(b, "store")) return;
    faulty_cpu->store(b, rows, k, v, pos, n);
    spoil_rows(rows, pos, n);
}

static void faulty_move(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
    if (!faulty_runs(b, "move")) return;
    faulty_cpu->move(b, out, in, pos, n);
    spoil_rows(out, pos, n);
}

static void spoil_groups(const cca_groups *groups, int64_t pos, int64_t n) {
    int64_t first, count = cca_groups_completed(groups->size, pos, n, &first);
    spoil_rows(&groups->cores, first, count);
}

static void faulty_pool(cca_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
                        int64_t n) {
    if (!faulty_runs(b, "pool")) return;
    faulty_cpu->pool(b, groups, q, pos, n);
    spoil_groups(groups, pos, n);
}

static void faulty_bound(cca_backend *b, const cca_groups *groups, int64_t pos, int64_t n) {
    if (!faulty_runs(b, "bound")) return;
    faulty_cpu->bound(b, groups, pos, n);
    spoil_groups(groups, pos, n);
}

static void faulty_choose(cca_backend *b, const cca_choice *out, const cca_rows *bounds,
                          const cca_rows *blocks, const cca_range *groups, const cca_matrix *q,
                          int64_t pos, int64_t n) {
    if (faulty_runs(b, "choose")) faulty_cpu->choose(b, out, bounds, blocks, groups, q, pos, n);
}

static void faulty_gather(cca_backend *b, const cca_rows *out, const cca_rows *in,
                          const cca_choice *choice, int64_t n_tiles) {
    if (faulty_runs(b, "gather")) faulty_cpu->gather(b, out, in, choice, n_tiles);
}

static void faulty_renew(cca_backend *b, const cca_kept *kept, const cca_rows *in,
                         const cca_choice *choice, int64_t n_known) {
    if (faulty_runs(b, "renew")) faulty_cpu->renew(b, kept, in, choice, n_known);
}

static void faulty_attend(cca_backend *b, cca_matrix *out, const cca_spans *spans,
                          const cca_matrix *q, int64_t pos, int64_t n) {
    if (!faulty_runs(b, "attend")) return;
    faulty_cpu->attend(b, out, spans, q, pos, n);
    spoil_matrix(out, n);
}

static void faulty_mass(cca_backend *b, const cca_mass *mass, const cca_spans *spans,
                        const cca_matrix *q, int64_t row, int64_t pos) {
    if (!faulty_runs(b, "mass")) return;
    faulty_cpu->mass(b, mass, spans, q, row, pos);
    int64_t n_heads = q->cols / spans->at[0].rows.head_dim;
    spoil_bytes(mass->sums, (size_t)(n_heads * mass->n_slots) * sizeof *mass->sums);
}

static cca_ops faulty_ops(const cca_ops *cpu) {
    cca_ops ops = *cpu;
    ops.alloc = faulty_alloc, ops.load = faulty_load, ops.upload = faulty_upload;
    ops.download = faulty_download, ops.sync = faulty_sync, ops.embed = faulty_embed;
    ops.rmsnorm = faulty_rmsnorm, ops.matmul = faulty_matmul, ops.angles = faulty_angles;
    ops.rotate = faulty_rotate, ops.swiglu = faulty_swiglu, ops.accumulate = faulty_accumulate;
    ops.store = faulty_store, ops.move = faulty_move, ops.pool = faulty_pool;
    ops.bound = faulty_bound, ops.choose = faulty_choose, ops.gather = faulty_gather;
    ops.renew = faulty_renew, ops.attend = faulty_attend, ops.mass = faulty_mass;
    return ops;
}

cca_status cca_backend_open(cca_backend **out, const char *device,
                            const cca_backend_options *options, cca_error *err) {
    static cca_ops ops;
    (void)device;
    cca_status status = cca_backend_cpu(out, options, err);
    if (status) return status;
    if (!faulty_cpu) {
        faulty_cpu = (*out)->ops;
        ops = faulty_ops(faulty_cpu);
    }
    (*out)->ops = &ops;
    return CCA_OK;
}

#endif
