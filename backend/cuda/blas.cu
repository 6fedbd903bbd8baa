/* Products through cuBLASLt. The library is loaded when a backend is made: linked, its half
 * gigabyte would slow each start of the program, also where no GPU is. */
#include "backend/cuda/device.cuh"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKSPACE = CUDA_WORKSPACE, N_PLANS = 64 };

/* A shape of a product, and the algorithm chosen for it: always the first of the heuristic, so
 * that the same shape gives the same bits. */
struct blas_plan {
    int64_t rows, cols, n;
    cudaDataType_t type; /* of weights and x */
    bool out16, bias, accumulate;
    cublasLtMatmulAlgo_t algo;
};

struct cuda_blas {
    void *library;
    cublasLtHandle_t handle;
    cuda_buffer workspace;
    blas_plan plans[N_PLANS];
    int n_plans;
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtMatmul) matmul;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    decltype(&cublasLtMatmulDescCreate) desc_create;
    decltype(&cublasLtMatmulDescDestroy) desc_destroy;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
};

static bool find_functions(cuda_blas *l) {
    const struct {
        const char *name;
        void *out;
    } list[] = {
        {"cublasLtCreate", &l->create},
        {"cublasLtDestroy", &l->destroy},
        {"cublasLtMatmul", &l->matmul},
        {"cublasLtMatmulAlgoGetHeuristic", &l->heuristic},
        {"cublasLtMatmulDescCreate", &l->desc_create},
        {"cublasLtMatmulDescDestroy", &l->desc_destroy},
        {"cublasLtMatmulDescSetAttribute", &l->desc_set},
        {"cublasLtMatrixLayoutCreate", &l->layout_create},
        {"cublasLtMatrixLayoutDestroy", &l->layout_destroy},
        {"cublasLtMatmulPreferenceCreate", &l->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &l->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &l->preference_set},
    };
    for (const auto &f : list) {
        void *address = dlsym(l->library, f.name);
        if (!address) return false;
        memcpy(f.out, &address, sizeof address);
    }
    return true;
}

cuda_blas *cuda_blas_new(cuda_backend *b) {
    char name[64];
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    cuda_blas *l = (cuda_blas *)calloc(1, sizeof *l);
    if (!l) {
        cca_backend_fail(&b->base, CCA_NO_MEMORY, "no memory for the CUDA backend");
        return NULL;
    }
    l->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!l->library || !find_functions(l)) {
        cca_backend_fail(&b->base, CCA_RUNTIME,
                         "the CUDA backend needs the library %s (its folder can be named in "
                         "LD_LIBRARY_PATH)",
                         name);
    } else if (l->create(&l->handle) != CUBLAS_STATUS_SUCCESS) {
        cca_backend_fail(&b->base, CCA_RUNTIME, "%s cannot be used on device cuda:%d", name,
                         b->device);
    } else {
        return l;
    }
    cuda_blas_free(l);
    return NULL;
}

void cuda_blas_free(cuda_blas *l) {
    if (!l) return;
    if (l->handle) l->destroy(l->handle);
    cudaFree(l->workspace.data);
    if (l->library) dlclose(l->library);
    free(l);
}

/* The descriptors of a product. To the library, which counts by columns, the weights are
 * (cols, rows) and transposed, x is (cols, n) and out (rows, n). */
struct blas_call {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, out;
};

static void end_call(const cuda_blas *l, blas_call *c) {
    if (c->desc) l->desc_destroy(c->desc);
    if (c->w) l->layout_destroy(c->w);
    if (c->x) l->layout_destroy(c->x);
    if (c->out) l->layout_destroy(c->out);
}

static bool set(const cuda_blas *l, blas_call *c, cublasLtMatmulDescAttributes_t attribute,
                const void *value, size_t bytes) {
    return l->desc_set(c->desc, attribute, value, bytes) == CUBLAS_STATUS_SUCCESS;
}

static bool set_bias(const cuda_blas *l, blas_call *c, const float *bias) {
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    return set(l, c, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue) &&
           set(l, c, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
}

/* A scale for each row of weights and of x. */
static bool set_scales(const cuda_blas *l, blas_call *c, const float *w, const float *x) {
    int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    int8_t fast = 1;
    return set(l, c, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode) &&
           set(l, c, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode) &&
           set(l, c, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w, sizeof w) &&
           set(l, c, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x, sizeof x) &&
           set(l, c, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast);
}

static bool begin_call(const cuda_blas *l, blas_call *c, const blas_plan *p) {
    cudaDataType_t out_type = p->out16 ? CUDA_R_16BF : CUDA_R_32F;
    uint64_t rows = (uint64_t)p->rows, cols = (uint64_t)p->cols, n = (uint64_t)p->n;
    cublasOperation_t transposed = CUBLAS_OP_T;
    *c = blas_call{};
    return l->desc_create(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           l->layout_create(&c->w, p->type, cols, rows, p->cols) == CUBLAS_STATUS_SUCCESS &&
           l->layout_create(&c->x, p->type, cols, n, p->cols) == CUBLAS_STATUS_SUCCESS &&
           l->layout_create(&c->out, out_type, rows, n, p->rows) == CUBLAS_STATUS_SUCCESS &&
           set(l, c, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
}

static bool same_shape(const blas_plan *a, const blas_plan *b) {
    return a->rows == b->rows && a->cols == b->cols && a->n == b->n && a->type == b->type &&
           a->out16 == b->out16 && a->bias == b->bias && a->accumulate == b->accumulate;
}

/* The algorithm for a shape: one used before, or the heuristic's first. */
static bool choose(cuda_blas *l, blas_plan *p, const blas_call *c) {
    int known = l->n_plans < N_PLANS ? l->n_plans : N_PLANS;
    for (int i = 0; i < known; i++) {
        if (!same_shape(&l->plans[i], p)) continue;
        *p = l->plans[i];
        return true;
    }
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    uint64_t most = WORKSPACE;
    int found = 0;
    if (l->preference_create(&preference) != CUBLAS_STATUS_SUCCESS) return false;
    bool good = l->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                  sizeof most) == CUBLAS_STATUS_SUCCESS &&
                l->heuristic(l->handle, c->desc, c->w, c->x, c->out, c->out, preference, 1, &result,
                             &found) == CUBLAS_STATUS_SUCCESS &&
                found == 1;
    l->preference_destroy(preference);
    if (!good) return false;
    p->algo = result.algo;
    l->plans[l->n_plans++ % N_PLANS] = *p;
    return true;
}

bool cuda_blas_product(cuda_backend *b, const cca_product *p, const cuda_operand *w,
                       const cuda_operand *x, bool out16, int64_t n) {
    cuda_blas *l = b->blas;
    cuda_token_run(b);
    blas_plan plan = {};
    plan.rows = p->weight->rows;
    plan.cols = p->weight->cols;
    plan.n = n;
    plan.type = x->type;
    plan.out16 = out16;
    plan.bias = p->bias != NULL;
    plan.accumulate = p->accumulate;
    void *workspace = cuda_grow(b, &l->workspace, WORKSPACE);
    if (!workspace || !w->data || !x->data) return true; /* failed, and said so */
    blas_call c;
    bool good = begin_call(l, &c, &plan) &&
                (!p->bias || set_bias(l, &c, (const float *)p->bias->data)) &&
                (!x->scale || set_scales(l, &c, w->scale, x->scale)) && choose(l, &plan, &c);
    if (good) {
        float one = 1, add = p->accumulate ? 1.0f : 0.0f;
        cublasStatus_t status =
            l->matmul(l->handle, c.desc, &one, w->data, c.w, x->data, c.x, &add, p->out->data,
                      c.out, p->out->data, c.out, &plan.algo, workspace, WORKSPACE, b->stream);
        if (status != CUBLAS_STATUS_SUCCESS) {
            cca_backend_fail(&b->base, CCA_RUNTIME, "cuda:%d: product: cuBLASLt status %d",
                             b->device, (int)status);
        }
    }
    end_call(l, &c);
    return good;
}
