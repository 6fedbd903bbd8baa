/* Checkpoints of karpathy/llama2.c, versions 0 and 1: float32, q and k in pairs as GGUF's
 * llama has them. A file has no description of its parts, so its size must be exactly what its
 * header asks for. */
#include "export/source.h"

#include <stdlib.h>
#include <string.h>

enum { V1_MAGIC = 0x616b3432, V1_HEADER_BYTES = 256, V0_HEADER_BYTES = 7 * 4 };

/* The order of the tensors in the file; a tensor that layers have comes for all of them. */
static const cca_role v0_order[] = {
    CCA_EMBEDDING, CCA_ATTN_NORM, CCA_ATTN_Q,   CCA_ATTN_K, CCA_ATTN_V,      CCA_ATTN_OUT,
    CCA_FFN_NORM,  CCA_FFN_GATE,  CCA_FFN_DOWN, CCA_FFN_UP, CCA_OUTPUT_NORM,
};
static const cca_role v1_order[] = {
    CCA_ATTN_NORM, CCA_FFN_NORM, CCA_OUTPUT_NORM, CCA_EMBEDDING, CCA_ATTN_Q, CCA_ATTN_K,
    CCA_ATTN_V,    CCA_ATTN_OUT, CCA_FFN_GATE,    CCA_FFN_DOWN,  CCA_FFN_UP,
};

/* The mapped file and how far its tensors have been handed out. */
typedef struct checkpoint {
    cca_mapping file;
    const char *path;
    int version;
    size_t at;
} checkpoint;

static cca_status too_short(const checkpoint *c, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: truncated llama2.c file: only %zu bytes", c->path,
                    c->file.size);
}

/* Header of both versions: seven int32. Version 0 says by a negative vocabulary size that the
 * output matrix is not the embedding; version 1 has a byte for that. */
static cca_status read_header(cca_config *config, checkpoint *c, cca_error *err) {
    int32_t n[7];
    const uint8_t *bytes = c->file.data;
    uint32_t magic = 0;
    if (c->file.size < V0_HEADER_BYTES) return too_short(c, err);
    memcpy(&magic, bytes, sizeof magic);
    c->version = 0;
    c->at = V0_HEADER_BYTES;
    if (magic == V1_MAGIC) {
        memcpy(&c->version, bytes + 4, 4);
        if (c->version != 1) {
            return cca_fail(err, CCA_BAD_MODEL,
                            "%s: llama2.c file of version %d (0 and 1 are supported)", c->path,
                            c->version);
        }
        if (c->file.size < V1_HEADER_BYTES) return too_short(c, err);
        c->at = V1_HEADER_BYTES;
        bytes += 8;
    }
    memcpy(n, bytes, sizeof n);
    bool untied = c->version == 0 ? n[5] < 0 : bytes[sizeof n] == 0;
    if (n[3] < 1 || n[0] < 1 || n[0] % n[3] != 0) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: not a llama2.c file: dim %d is no multiple of n_heads %d", c->path,
                        n[0], n[3]);
    }
    *config = (cca_config){
        .arch = &cca_archs[CCA_ARCH_LLAMA],
        .dim = n[0],
        .hidden_dim = n[1],
        .n_layers = n[2],
        .n_heads = n[3],
        .n_kv_heads = n[4],
        .head_dim = n[0] / n[3],
        .vocab_size = c->version == 0 ? llabs((long long)n[5]) : n[5],
        .seq_len = n[6],
        .norm_eps = 1e-5f,
        .tied = !untied,
        .rope_theta = 10000,
        .rope_factor = 1,
    };
    return CCA_OK;
}

static cca_status bad_size(const checkpoint *c, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: its %zu bytes do not match the sizes in its llama2.c header", c->path,
                    c->file.size);
}

static bool skip(checkpoint *c, size_t bytes) {
    if (bytes > c->file.size - c->at) return false;
    c->at += bytes;
    return true;
}

/* Hands out the tensors of one role, layer after layer. */
static bool take_role(cca_source *source, checkpoint *c, cca_role role) {
    for (int64_t i = 0; i < source->n_tensors; i++) {
        cca_source_tensor *t = &source->tensors[i];
        size_t bytes;
        if (t->role != role) continue;
        t->data = c->file.data + c->at;
        t->mapped = true;
        if (!cca_source_tensor_bytes(&bytes, t) || !skip(c, bytes)) return false;
    }
    return true;
}

static cca_status take_tensors(cca_source *source, checkpoint *c, cca_error *err) {
    const cca_role *order = c->version == 0 ? v0_order : v1_order;
    for (size_t i = 0; i < sizeof v0_order / sizeof *v0_order; i++) {
        if (!take_role(source, c, order[i])) return bad_size(c, err);
    }
    /* Version 0 has tables of cosines and sines here that nobody reads any more. */
    size_t tables = (size_t)source->config.seq_len * (size_t)source->config.head_dim;
    if (c->version == 0 && !skip(c, tables * sizeof(float))) return bad_size(c, err);
    if (!take_role(source, c, CCA_OUTPUT)) return bad_size(c, err);
    return c->at == c->file.size ? CCA_OK : bad_size(c, err);
}

static void close_checkpoint(void *owner) {
    checkpoint *c = owner;
    cca_mapping_close(&c->file);
    free(c);
}

cca_status cca_source_open_llama2c(cca_source *out, const char *path, cca_error *err) {
    checkpoint *c = calloc(1, sizeof *c);
    out->name = cca_export_base_name(path);
    out->owner = c;
    out->close = close_checkpoint;
    if (!c || !out->name) {
        if (!c) out->close = NULL;
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to open it", path);
    }
    c->path = path;
    out->text = (cca_source_text){.bos = -1, .eos = -1, .add_bos = true};
    cca_status status = cca_mapping_open(&c->file, path, err);
    if (!status) status = read_header(&out->config, c, err);
    if (!status) status = cca_source_layout(out, path, err);
    if (!status) status = take_tensors(out, c, err);
    return status;
}
