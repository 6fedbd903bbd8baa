/* What a layer consists of, as one operation each: one row of x through the products of
 * token.cu, many rows through cuBLASLt with activations that stay in bf16 between. Other
 * numbers of rows and other types are left to the single operations. */
#include "backend/cuda/types.cuh"

/* Products of 16 bits need rows of whole vectors, and cuBLASLt an algorithm for them. */
static bool suits_halves(const cca_product *products, int n_products) {
    for (int i = 0; i < n_products; i++) {
        const cca_matrix *w = products[i].weight;
        if (cuda_is_exact(w->type) || w->rows % 16 != 0 || w->cols % 16 != 0) return false;
    }
    return true;
}

static void multiply(cuda_backend *b, const cca_product *p, const cuda_operand *x, bool out16,
                     int64_t n) {
    if (cuda_product(b, p, x, out16, n)) return;
    cca_backend_fail(&b->base, CCA_RUNTIME,
                     "cuda:%d: cuBLASLt has no product of (%lld, %lld) weights and %lld rows",
                     b->device, (long long)p->weight->rows, (long long)p->weight->cols,
                     (long long)n);
}

/* The norm of n rows of x as these products want it; data NULL where rows are too long. */
static cuda_operand norm_of(cuda_backend *b, const cca_product *products, int n_products,
                            const cca_matrix *x, int64_t x_row, const cca_matrix *weight, float eps,
                            int64_t n) {
    bool bytes = true;
    for (int i = 0; i < n_products; i++) bytes = bytes && cuda_bytes_suit(b, &products[i]);
    if (bytes) return cuda_bytes_of_norm(b, x, x_row, weight, eps, n);
    return cuda_operand{cuda_rmsnorm16(b, x, x_row, weight, eps, n), CUDA_R_16BF, NULL};
}

bool cuda_norm_matmul(cca_backend *base, const cca_product *products, int n_products, cca_matrix *h,
                      const cca_matrix *x, int64_t x_row, const cca_matrix *weight, float eps,
                      int64_t n) {
    cuda_backend *b = cuda_of(base);
    (void)h;
    if (!b->forms.fused) return false;
    if (n == 1) {
        const cuda_norm norm = {(const float *)weight->data, eps};
        const float *row = (const float *)x->data + x_row * x->cols;
        return cuda_token_products(b, products, n_products, false, row, &norm);
    }
    if (n <= CUDA_FEW || !suits_halves(products, n_products)) return false;
    cuda_operand h16 = norm_of(b, products, n_products, x, x_row, weight, eps, n);
    if (!h16.data) return false;
    for (int i = 0; i < n_products; i++) multiply(b, &products[i], &h16, false, n);
    return true;
}

bool cuda_feed_forward(cca_backend *base, cca_matrix *x, const cca_ffn *f, int64_t n) {
    cuda_backend *b = cuda_of(base);
    const cca_product in[] = {{f->gated, f->gate, NULL, false}, {f->upped, f->up, NULL, false}};
    const cca_product down = {x, f->down, NULL, true};
    if (!b->forms.fused) return false;
    if (n == 1) {
        const cuda_norm norm = {(const float *)f->norm->data, f->eps};
        if (!cuda_token_products(b, in, 2, true, (const float *)x->data, &norm)) return false;
        base->ops->matmul(base, &down, 1, f->gated, 1);
        return true;
    }
    if (n <= CUDA_FEW || !suits_halves(in, 2) || !suits_halves(&down, 1)) return false;
    cuda_operand h = norm_of(b, in, 2, x, 0, f->norm, f->eps, n);
    if (!h.data) return false;
    for (int i = 0; i < 2; i++) multiply(b, &in[i], &h, true, n);
    cuda_operand gated = {f->gated->data, CUDA_R_16BF, NULL};
    if (cuda_bytes_suit(b, &down)) {
        gated = cuda_bytes_of_gated(b, f->gated->data, f->upped->data, n, f->gated->cols);
    } else {
        cuda_swiglu16(b, f->gated->data, f->upped->data, n * f->gated->cols);
    }
    multiply(b, &down, &gated, false, n);
    return true;
}
