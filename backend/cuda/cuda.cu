/* The CUDA backend: memory, errors, and which form of a product runs. */
#include "backend/cuda/types.cuh"

extern "C" {
#include "backend/cpu/mass.h"
#include "base/clock.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- failures ------------------------------------------------------------------------ */

bool cuda_check(cuda_backend *b, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return true;
    cudaGetLastError(); /* a failed allocation is reported once, not at the next launch again */
    bool memory = error == cudaErrorMemoryAllocation;
    cca_backend_fail(&b->base, memory ? CCA_NO_MEMORY : CCA_RUNTIME, "cuda:%d: %s: %s", b->device,
                     what, cudaGetErrorString(error));
    return false;
}

static bool enter(cuda_backend *b) {
    return cuda_check(b, cudaSetDevice(b->device), "device");
}

/* ---- waiting ------------------------------------------------------------------------- */

/* At the end of a process the runtime waits for what still runs: whoever has lost a device leaves
 * before. Called ahead of all that was registered earlier. */
static void leave(int status, void *) {
    fflush(NULL);
    _exit(status);
}

/* A kernel that never ends cannot be told from a slow one: who has asked to stop waits for some
 * time, and what was under way is the failure then, in place of the interruption. */
static bool lose(cuda_backend *b) {
    if (b->base.status == CCA_INTERRUPTED) b->base.status = CCA_OK;
    cca_backend_fail(&b->base, CCA_RUNTIME,
                     "cuda:%d: has not answered for %d seconds since it was to stop", b->device,
                     b->forms.patience);
    b->base.lost = true;
    on_exit(leave, NULL);
    return false;
}

/* Until the device has done everything; false after a failure. Asks over and over, as the runtime's
 * own waiting does, which sees nobody who asks to stop. */
static bool wait_for_all(cuda_backend *b, const char *what) {
    double asked = 0; /* to stop */
    cudaError_t error;
    if (b->base.lost) return false;
    while ((error = cudaStreamQuery(b->stream)) == cudaErrorNotReady) {
        if (!b->base.stop || !*b->base.stop) continue;
        if (asked == 0) asked = cca_seconds();
        if (cca_seconds() - asked > b->forms.patience) return lose(b);
    }
    cuda_token_waited(b);
    cudaGetLastError(); /* that it was not ready */
    return cuda_check(b, error, what);
}

/* What failed is told by the backend. */
static cca_status cuda_sync(cca_backend *base, cca_error *) {
    cuda_backend *b = cuda_of(base);
    cuda_token_run(b);
    if (enter(b)) wait_for_all(b, "kernels");
    return CCA_OK;
}

bool cuda_settle(cuda_backend *b) {
    cuda_token_run(b);
    if (!b->base.lost && enter(b)) wait_for_all(b, "kernels");
    return !b->base.lost;
}

/* ---- memory -------------------------------------------------------------------------- */

static size_t cuda_room(cca_backend *base) {
    size_t room = 0, total = 0;
    if (!enter(cuda_of(base))) return 0;
    return cudaMemGetInfo(&room, &total) == cudaSuccess ? room : SIZE_MAX;
}

/* The buffers that grow with the products of a chunk: operands in the form they want. Logits of
 * many tokens at a time, which only ppl wants, take the output's weights in 16 bits besides. */
static size_t cuda_beside(cca_backend *base, const cca_layer_sizes *l) {
    cuda_backend *b = cuda_of(base);
    size_t n = (size_t)l->n_tokens, dim = (size_t)l->dim, hidden = (size_t)l->hidden_dim;
    size_t widest = hidden > dim ? hidden : dim, two = sizeof(__nv_bfloat16);
    bool whole = cuda_is_exact(l->type);
    bool fused = b->forms.fused && !whole && dim % 16 == 0 && hidden % 16 == 0;
    size_t bytes = l->n_groups > 0 ? cuda_choose_room(b, l) : 0;
    if (l->n_tokens <= CUDA_FEW) return bytes;
    bytes += CUDA_WORKSPACE + n * (fused ? dim : widest) * two;
    if (!cuda_is_operand(l->type)) bytes += dim * widest * two;
    if (b->fp8 && !whole) bytes += (n + dim) * widest;
    return bytes;
}

static void *cuda_alloc(cca_backend *base, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    b->twin_of = NULL;
    void *data = NULL;
    if (!enter(b)) return NULL;
    cudaError_t error =
        cuda_fails(b) ? cudaErrorMemoryAllocation : cudaMalloc(&data, bytes ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        cca_backend_fail(base, CCA_NO_MEMORY, "cuda:%d: no memory for %zu bytes", b->device, bytes);
        return NULL;
    }
    if (!cuda_check(b, error, "allocation")) return NULL;
    if (cuda_check(b, cudaMemsetAsync(data, 0, bytes, b->stream), "allocation")) return data;
    cudaFree(data);
    return NULL;
}

static void cuda_release(cca_backend *base, void *data) {
    if (cuda_settle(cuda_of(base))) cudaFree(data);
}

void *cuda_grow(cuda_backend *b, cuda_buffer *buffer, size_t bytes) {
    if (b->base.status) return NULL;
    if (bytes <= buffer->bytes) return buffer->data;
    cuda_token_run(b);
    if (buffer->data && !cuda_settle(b)) return NULL;
    cudaFree(buffer->data);
    buffer->bytes = 0;
    buffer->data = cuda_alloc(&b->base, bytes);
    if (buffer->data) buffer->bytes = bytes;
    return buffer->data;
}

static void cuda_drop(cuda_backend *b, cuda_buffer *buffer) {
    if (cuda_settle(b)) cudaFree(buffer->data);
    *buffer = cuda_buffer{};
}

/* From pageable memory the runtime has taken a copy when it returns. */
void cuda_push(cuda_backend *b, void *out, const void *host, size_t bytes) {
    b->twin_of = NULL;
    cuda_token_run(b);
    if (!enter(b)) return;
    cuda_check(b, cudaMemcpyAsync(out, host, bytes, cudaMemcpyHostToDevice, b->stream), "upload");
}

/* Host memory that is mapped from a file or pinned may be read later: waits. */
static void cuda_upload(cca_backend *base, void *out, const void *host, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    cuda_push(b, out, host, bytes);
    wait_for_all(b, "upload");
}

/* Host memory that the device writes to directly, for what is not too long; else NULL. */
static void *pinned(cuda_backend *b, size_t bytes) {
    enum { MOST = 1 << 20 };
    if (bytes <= b->pinned.bytes) return b->pinned.data;
    if (bytes > MOST || !wait_for_all(b, "download")) return NULL;
    cudaFreeHost(b->pinned.data);
    b->pinned = cuda_buffer{};
    if (cudaMallocHost(&b->pinned.data, bytes) == cudaSuccess) b->pinned.bytes = bytes;
    cudaGetLastError();
    return b->pinned.data;
}

static void cuda_download(cca_backend *base, void *host, const void *data, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    cuda_token_run(b);
    if (!enter(b)) return;
    void *stage = pinned(b, bytes);
    /* A copy to pageable memory waits by itself. */
    if (!stage && !wait_for_all(b, "download")) return;
    cuda_check(
        b, cudaMemcpyAsync(stage ? stage : host, data, bytes, cudaMemcpyDeviceToHost, b->stream),
        "download");
    if (wait_for_all(b, "download") && stage) memcpy(host, stage, bytes);
}

/* Types that no kernel knows become ones that are alike, or bf16. */
static cca_dtype cuda_keeps(cca_dtype type) {
    const cca_dtype_facts *t = cca_dtype_find(type);
    if (weight_types::has(type)) return type;
    return t->to_alike && weight_types::has(t->alike) ? t->alike : CCA_BF16;
}

static void *cuda_load(cca_backend *base, const cca_matrix *shape, const void *host, size_t bytes,
                       bool *owned) {
    cuda_backend *b = cuda_of(base);
    *owned = true;
    void *data = cuda_alloc(base, cuda_weight_bytes(shape));
    if (!data) return NULL;
    bool split = cuda_has_blocks(shape->type);
    void *raw = split ? cuda_grow(b, &b->w, bytes) : data;
    if (raw) cuda_upload(base, raw, host, bytes);
    if (split) cuda_repack(b, data, raw, shape);
    cuda_drop(b, &b->w); /* whoever loads computes with a backend of its own */
    if (!base->status) return data;
    cuda_release(base, data);
    return NULL;
}

static void cuda_destroy(cca_backend *base) {
    cuda_backend *b = cuda_of(base);
    if (b->stream && !cuda_settle(b)) return; /* what runs may use all of it */
    cuda_link_free(b);
    cuda_buffer *all[] = {&b->ids, &b->freq,    &b->x,     &b->w,    &b->x8,
                          &b->w8,  &b->partial, &b->count, &b->sums, &b->scores};
    for (cuda_buffer *buffer : all) cudaFree(buffer->data);
    cudaFreeHost(b->pinned.data);
    cuda_blas_free(b->blas);
    cuda_token_free(b);
    free(b->freq_host);
    if (b->stream) cudaStreamDestroy(b->stream);
    free(b);
}

/* ---- products ------------------------------------------------------------------------ */

__nv_bfloat16 *cuda_twin(cuda_backend *b, const cca_matrix *out, int64_t n) {
    if (n <= CUDA_FEW || out->cols % 4 != 0) return NULL;
    return (__nv_bfloat16 *)cuda_grow(b, &b->x, (size_t)(n * out->cols) * sizeof(__nv_bfloat16));
}

void cuda_set_twin(cuda_backend *b, const cca_matrix *out, int64_t n) {
    b->twin_of = out->data;
    b->twin_n = n * out->cols;
}

/* x as bf16, in the backend's buffer. */
static void *as_bf16(cuda_backend *b, const cca_matrix *x, int64_t n) {
    if (b->twin_of == x->data && b->twin_n >= n * x->cols) return b->x.data;
    void *x16 = cuda_grow(b, &b->x, (size_t)(n * x->cols) * sizeof(__nv_bfloat16));
    if (x16) cuda_to_bf16(b, x16, (const float *)x->data, n * x->cols);
    return x16;
}

/* Weights in the type of x. */
static cuda_operand weights_as(cuda_backend *b, const cca_matrix *w, cudaDataType_t type) {
    cuda_operand out = {w->data, type, NULL};
    if (!cuda_is_operand(w->type)) {
        void *form = cuda_grow(b, &b->w, (size_t)(w->rows * w->cols) * sizeof(__nv_bfloat16));
        if (form) cuda_weights_to_bf16(b, form, w);
        out.data = form;
    }
    if (type == CUDA_R_8F_E4M3 && out.data) {
        out = cuda_bytes_of(b, &b->w8, out.data, w->rows, w->cols);
    }
    return out;
}

bool cuda_product(cuda_backend *b, const cca_product *p, const cuda_operand *x, bool out16,
                  int64_t n) {
    cuda_operand w = weights_as(b, p->weight, x->type);
    return cuda_blas_product(b, p, &w, x, out16, n);
}

/* Through cuBLASLt, in bf16 or bytes but for f32 weights, which stay exact. x16: x in bf16. */
static void multiply(cuda_backend *b, const cca_product *p, const cca_matrix *x, const void *x16,
                     int64_t n) {
    cuda_operand operand = {x16, CUDA_R_16BF, NULL};
    if (cuda_is_exact(p->weight->type)) operand = cuda_operand{x->data, CUDA_R_32F, NULL};
    if (cuda_bytes_suit(b, p)) operand = cuda_bytes_of(b, &b->x8, x16, n, x->cols);
    if (!cuda_product(b, p, &operand, false, n)) cuda_gemv(b, p, 1, x, n);
}

static void cuda_matmul(cca_backend *base, const cca_product *products, int n_products,
                        const cca_matrix *x, int64_t n) {
    cuda_backend *b = cuda_of(base);
    if (n == 0 || !enter(b)) return;
    if (n == 1 && cuda_token_products(b, products, n_products, false, (const float *)x->data, NULL))
        return;
    if (n <= CUDA_FEW) {
        for (int first = 0, next; first < n_products; first = next) {
            cca_dtype type = products[first].weight->type;
            for (next = first + 1; next < n_products; next++) {
                if (products[next].weight->type != type) break;
            }
            cuda_gemv(b, products + first, next - first, x, n);
        }
        return;
    }
    bool any = false;
    for (int i = 0; i < n_products; i++) any = any || !cuda_is_exact(products[i].weight->type);
    void *x16 = any ? as_bf16(b, x, n) : NULL;
    b->twin_of = NULL;
    for (int i = 0; i < n_products; i++) multiply(b, &products[i], x, x16, n);
}

/* ---- the table ----------------------------------------------------------------------- */

static cca_ops make_ops() {
    cca_ops ops = {};
    ops.name = "cuda";
    ops.chunk_size = 8192; /* products are saturated from half of that on */
    ops.destroy = cuda_destroy;
    ops.room = cuda_room;
    ops.beside = cuda_beside;
    ops.alloc = cuda_alloc;
    ops.release = cuda_release;
    ops.alloc_host = cuda_alloc_host;
    ops.release_host = cuda_release_host;
    ops.bring = cuda_bring;
    ops.brought = cuda_brought;
    ops.send = cuda_send;
    ops.keeps = cuda_keeps;
    ops.kept_bytes = cuda_weight_bytes;
    ops.load = cuda_load;
    ops.upload = cuda_upload;
    ops.download = cuda_download;
    ops.sync = cuda_sync;
    ops.embed = cuda_embed;
    ops.rmsnorm = cuda_rmsnorm;
    ops.matmul = cuda_matmul;
    ops.angles = cuda_angles;
    ops.rotate = cuda_rotate;
    ops.swiglu = cuda_swiglu;
    ops.relu_squared = cuda_relu_squared;
    ops.accumulate = cuda_accumulate;
    ops.store = cuda_store;
    ops.move = cuda_move;
    ops.pool = cuda_pool;
    ops.bound = cuda_bound;
    ops.choose = cuda_choose;
    ops.gather = cuda_gather;
    ops.renew = cuda_renew;
    ops.attend = cuda_attend;
    ops.mass = cca_mass_on_host;
    ops.norm_matmul = cuda_norm_matmul;
    ops.feed_forward = cuda_feed_forward;
    ops.rotate_store = cuda_rotate_store;
    return ops;
}

static cca_status find_device(int device, cca_error *err) {
    int n = 0, driver = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
        return cca_fail(err, CCA_RUNTIME, "no CUDA device can be used: there is no NVIDIA driver");
    }
    if (error != cudaSuccess) {
        return cca_fail(err, CCA_RUNTIME, "no CUDA device can be used: %s",
                        cudaGetErrorString(error));
    }
    if (device < n) return CCA_OK;
    return cca_fail(err, CCA_RUNTIME, "there is no device cuda:%d: this machine has %d", device, n);
}

static void open_device(cuda_backend *b) {
    int major = 0, minor = 0;
    if (!enter(b)) return;
    cuda_check(b, cudaDeviceGetAttribute(&b->n_sm, cudaDevAttrMultiProcessorCount, b->device),
               "device");
    cuda_check(b, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, b->device),
               "device");
    cuda_check(b, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, b->device),
               "device");
    b->capability = major * 10 + minor;
    b->forms.wgmma = b->forms.wgmma && b->capability == 90;
    b->forms.early = b->forms.early && b->capability >= 90;
    b->forms.stream = b->forms.stream && b->capability >= 90;
    if (!b->base.status && major < 8) {
        cca_backend_fail(&b->base, CCA_RUNTIME,
                         "cuda:%d: compute capability %d.%d; at least 8.0 is needed", b->device,
                         major, minor);
    }
    if (!b->base.status && b->fp8 && b->capability < 89) {
        cca_backend_fail(&b->base, CCA_RUNTIME,
                         "cuda:%d: compute capability %d.%d; products in 8-bit floats need 8.9",
                         b->device, major, minor);
    }
    cuda_check(b, cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking), "stream");
    cuda_token_prepare(b);
    if (!b->base.status) b->blas = cuda_blas_new(b);
}

extern "C" cca_status cca_backend_cuda_with(cca_backend **out, int device,
                                            const cca_backend_options *options,
                                            const cca_cuda_forms *forms, cca_error *err) {
    static const cca_ops cuda_ops = make_ops();
    *out = NULL;
    cca_status status = find_device(device, err);
    if (status) return status;
    cuda_backend *b = (cuda_backend *)calloc(1, sizeof *b);
    if (!b) return cca_fail(err, CCA_NO_MEMORY, "no memory for the CUDA backend");
    b->base.ops = &cuda_ops;
    b->base.stop = options->stop;
    b->fp8 = options->fp8;
    b->device = device;
    b->forms = *forms;
    open_device(b);
    if (b->base.status) {
        status = cca_fail(err, b->base.status, "%s", b->base.error.text);
        cuda_destroy(&b->base);
        return status;
    }
    *out = &b->base;
    return CCA_OK;
}

extern "C" cca_status cca_backend_cuda(cca_backend **out, int device,
                                       const cca_backend_options *options, cca_error *err) {
    const cca_cuda_forms all = cca_cuda_all_forms();
    return cca_backend_cuda_with(out, device, options, &all, err);
}
