#include "export/convert.h"

#include "base/stop_flag.h"
#include "base/workers.h"
#include "export/mixture.h"
#include "gguf/config.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Rows are converted in chunks of about so many bytes, each by so many pieces in parallel. */
enum { CHUNK_BYTES = 8 << 20, MAX_PIECES = 64 };

static const uint32_t magnitude_bits = 0x7fffffff, infinity_bits = 0x7f800000;

/* --- types --------------------------------------------------------------------------- */

static cca_dtype target_type(const cca_source *source, const cca_source_tensor *t,
                             const cca_export_options *options) {
    if (t->vector) return CCA_F32;
    return cca_export_type_of(&source->config, t->role, t->layer, t->cols, t->type, options);
}

/* Matrices that another type takes the place of since the wanted one's blocks do not fit, by the
 * type that they become. */
static void warn_of_others(const cca_source *source, const cca_target *targets,
                           const cca_export_options *o) {
    for (int k = 0; o->has_type && cca_dtype_at(k); k++) {
        const cca_dtype_facts *becomes = cca_dtype_at(k);
        int64_t n = 0, block = 1;
        for (int64_t i = 0; i < source->n_tensors; i++) {
            const cca_source_tensor *t = &source->tensors[i];
            if (t->vector || (uint32_t)targets[i].type != becomes->id) continue;
            cca_dtype wanted =
                cca_export_type_wanted(&source->config, t->role, t->layer, t->type, o);
            if (wanted == targets[i].type) continue;
            block = cca_dtype_block(wanted);
            n++;
        }
        if (n == 0) continue;
        cca_export_warn(o, "%lld tensors have rows that are no multiple of %lld and become %s",
                        (long long)n, (long long)block, becomes->lower);
    }
}

/* Tensors whose rows are parts of one follow each other in the source, in its order; they get the
 * type of the first. */
static void place(cca_target *targets, const cca_source *source, int64_t i) {
    const cca_source_tensor *t = &source->tensors[i];
    const cca_fused *fused = cca_fused_written(t->role, source->config.arch);
    const bool joins = fused && t->role != fused->parts[0];
    cca_target *target = &targets[i];
    if (joins) {
        target->type = target[-1].type;
        target->before = target[-1].before + target[-1].bytes;
    }
    target->index = i == 0 ? 0 : target[-1].index + !joins;
    memcpy(target->name, t->name, sizeof target->name);
    if (fused) cca_fused_name(target->name, fused, t->layer);
}

cca_status cca_targets_new(cca_target **out, const cca_source *source,
                           const cca_export_options *options, cca_error *err) {
    *out = calloc((size_t)source->n_tensors, sizeof **out);
    if (!*out) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory", options->output);
    for (int64_t i = 0; i < source->n_tensors; i++) {
        const cca_source_tensor *t = &source->tensors[i];
        cca_target *target = &(*out)[i];
        target->type = target_type(source, t, options);
        place(*out, source, i);
        /* Cannot fail: layout has checked the sizes. */
        (void)cca_dtype_row_bytes(&target->row_bytes, target->type, t->cols);
        target->bytes = (uint64_t)t->rows * target->row_bytes;
    }
    for (int64_t i = source->n_tensors - 1; i >= 0; i--) {
        cca_target *target = &(*out)[i];
        const bool is_last = i + 1 == source->n_tensors || target[1].index != target->index;
        target->whole = is_last ? target->before + target->bytes : target[1].whole;
    }
    warn_of_others(source, *out, options);
    return CCA_OK;
}

/* --- rows ---------------------------------------------------------------------------- */

/* The largest magnitude of a row as the bits of a float: they order like the numbers, with
 * infinity and NaN above all others. */
static uint32_t largest_bits(const float *row, int64_t n) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = cca_bits_of_float(row[i]) & magnitude_bits;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* What converting needs besides the rows: threads, and a row of floats for each of them. */
typedef struct converter {
    const cca_source *source;
    cca_workers *workers;
    float *values;
    int64_t width; /* values of the longest row */
} converter;

static void converter_free(converter *c) {
    cca_workers_free(c->workers);
    free(c->values);
    c->workers = NULL;
    c->values = NULL;
}

static cca_status converter_new(converter *out, const cca_source *source, int n_threads,
                                cca_error *err) {
    size_t bytes;
    *out = (converter){.source = source, .width = 1};
    for (int64_t i = 0; i < source->n_tensors; i++) {
        out->width = cca_max(out->width, source->tensors[i].cols);
    }
    if (cca_mul(&bytes, (size_t)out->width * sizeof(float), (size_t)n_threads)) {
        out->values = malloc(bytes);
        out->workers = cca_workers_new(n_threads);
    }
    if (out->values && out->workers) return CCA_OK;
    converter_free(out);
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for rows of %lld values", source->name,
                    (long long)out->width);
}

/* Rows first … first + n - 1 of a tensor on their way to out. */
typedef struct batch {
    const converter *converter;
    const cca_source_tensor *tensor;
    const cca_target *target;
    uint8_t *out;
    int64_t first, n;
    int64_t piece_rows;
    int64_t bad[MAX_PIECES]; /* the first row of a piece that does not fit, or -1 */
    uint32_t crcs[MAX_PIECES];
} batch;

static int64_t rows_of_piece(const batch *b, int64_t piece) {
    return cca_min(b->piece_rows, b->n - piece * b->piece_rows);
}

/* A row that is as the output has it goes there bit for bit: scales that were chosen with care
 * are not chosen again. */
static void write_row(uint8_t *out, const batch *b, int64_t row, const float *values) {
    const cca_source_tensor *t = b->tensor;
    const uint8_t *same = t->type != b->target->type ? NULL : cca_source_row(t, row);
    if (same) {
        memcpy(out, same, b->target->row_bytes);
    } else {
        cca_dtype_encode(out, b->target->type, values, t->cols);
    }
}

static void convert_piece(void *context, int64_t piece, int thread) {
    batch *b = context;
    const cca_source *source = b->converter->source;
    float *values = b->converter->values + (size_t)thread * (size_t)b->converter->width;
    int64_t first = piece * b->piece_rows, n = rows_of_piece(b, piece), cols = b->tensor->cols;
    uint8_t *out = b->out + (size_t)first * b->target->row_bytes;
    uint32_t limit = cca_bits_of_float(cca_dtype_find(b->target->type)->limit);
    b->bad[piece] = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = b->first + first + i;
        source->read_row(values, source, b->tensor, row);
        if (largest_bits(values, cols) >= limit) {
            b->bad[piece] = row;
            return;
        }
        write_row(out + (size_t)i * b->target->row_bytes, b, row, values);
    }
    b->crcs[piece] = (uint32_t)crc32_z(0, out, (size_t)n * b->target->row_bytes);
}

static cca_status bad_row(const batch *b, int64_t row, cca_error *err) {
    const cca_source *source = b->converter->source;
    float *values = b->converter->values;
    source->read_row(values, source, b->tensor, row);
    uint32_t bits = largest_bits(values, b->tensor->cols);
    if (bits >= infinity_bits) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s', row %lld: a value is not finite",
                        source->name, b->tensor->name, (long long)row);
    }
    return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s', row %lld: %g is too large for %s",
                    source->name, b->tensor->name, (long long)row, (double)cca_float_of_bits(bits),
                    cca_dtype_name(b->target->type));
}

/* Converts n rows to out and carries the checksum on. The pieces are the same for any number
 * of threads. */
static cca_status convert_rows(uint8_t *out, uint32_t *crc, const converter *c,
                               const cca_source_tensor *t, const cca_target *target, int64_t first,
                               int64_t n, cca_error *err) {
    batch b = {.converter = c, .tensor = t, .target = target, .out = out, .first = first, .n = n};
    b.piece_rows = (n + MAX_PIECES - 1) / MAX_PIECES;
    int64_t n_pieces = (n + b.piece_rows - 1) / b.piece_rows;
    cca_workers_run(c->workers, n_pieces, convert_piece, &b);
    for (int64_t i = 0; i < n_pieces; i++) {
        if (b.bad[i] >= 0) return bad_row(&b, b.bad[i], err);
        z_off_t bytes = (z_off_t)((size_t)rows_of_piece(&b, i) * target->row_bytes);
        *crc = (uint32_t)crc32_combine(*crc, b.crcs[i], bytes);
    }
    return CCA_OK;
}

/* --- all of it ----------------------------------------------------------------------- */

static int64_t chunk_rows(const cca_target *target) {
    return cca_max(1, CHUNK_BYTES / (int64_t)target->row_bytes);
}

/* What is under way: how many bytes of all tensors are written. */
typedef struct progress {
    const cca_export_options *options;
    uint64_t done, total;
} progress;

static cca_status advance(progress *p, const char *tensor, uint64_t bytes, cca_error *err) {
    const cca_export_options *o = p->options;
    p->done += bytes;
    if (o->on_progress) o->on_progress(o->user, p->done, p->total, tensor);
    if (cca_stop_asked(o->stop)) return cca_fail(err, CCA_INTERRUPTED, "interrupted");
    return CCA_OK;
}

static cca_status convert_tensor(cca_gguf_writer *w, const converter *c, int64_t index,
                                 const cca_target *target, uint8_t *chunk, uint32_t *crc,
                                 progress *p, cca_error *err) {
    const cca_source_tensor *t = &c->source->tensors[index];
    int64_t step = chunk_rows(target);
    size_t source_row = 0;
    (void)cca_source_row_bytes(&source_row, t); /* checked at layout */
    for (int64_t row = 0; row < t->rows; row += step) {
        int64_t n = cca_min(step, t->rows - row);
        size_t bytes = (size_t)n * target->row_bytes;
        uint64_t at = target->before + (uint64_t)row * target->row_bytes;
        cca_status status = convert_rows(chunk, crc, c, t, target, row, n, err);
        if (!status) {
            status = cca_gguf_writer_write(w, target->index, at, chunk, bytes, err);
        }
        if (t->mapped) {
            cca_mapping_forget(t->data + (size_t)row * source_row, (size_t)n * source_row);
        }
        if (!status) status = advance(p, t->name, bytes, err);
        if (status) return status;
    }
    return CCA_OK;
}

cca_status cca_convert(cca_gguf_writer *w, const cca_source *source, const cca_target *targets,
                       uint32_t *crcs, const cca_export_options *options, cca_error *err) {
    progress p = {.options = options};
    size_t chunk_bytes = 1;
    for (int64_t i = 0; i < source->n_tensors; i++) {
        size_t rows = (size_t)cca_min(chunk_rows(&targets[i]), source->tensors[i].rows);
        size_t bytes = rows * targets[i].row_bytes;
        if (bytes > chunk_bytes) chunk_bytes = bytes;
        p.total += targets[i].bytes;
    }
    converter c;
    cca_status status = converter_new(&c, source, options->n_threads, err);
    if (status) return status;
    uint8_t *chunk = malloc(chunk_bytes);
    if (!chunk) status = cca_fail(err, CCA_NO_MEMORY, "%s: no memory", options->output);
    for (int64_t i = 0; i < source->n_tensors && !status; i++) {
        uint32_t *crc = &crcs[targets[i].index];
        if (targets[i].before == 0) *crc = 0;
        status = convert_tensor(w, &c, i, &targets[i], chunk, crc, &p, err);
    }
    free(chunk);
    converter_free(&c);
    return status;
}

/* --- reading back -------------------------------------------------------------------- */

/* The first, the middle and the last row of a tensor must be what converting them gives. */
static cca_status check_tensor(const cca_gguf *file, const converter *c, int64_t index,
                               const cca_target *target, cca_error *err) {
    const cca_source_tensor *t = &c->source->tensors[index];
    const cca_gguf_tensor *written = cca_gguf_tensor_at(file, target->index);
    const char *name = cca_gguf_name(file);
    if (!written || strcmp(written->name, target->name) != 0 || written->type != target->type ||
        written->bytes != target->whole) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: read back, tensor '%s' differs", name, t->name);
    }
    uint8_t *row = malloc(target->row_bytes);
    if (!row) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to read it back", name);
    const int64_t sample[] = {0, t->rows / 2, t->rows - 1};
    cca_status status = CCA_OK;
    for (size_t i = 0; i < sizeof sample / sizeof *sample && !status; i++) {
        uint32_t crc = 0;
        const uint8_t *there =
            (const uint8_t *)written->data + target->before + (size_t)sample[i] * target->row_bytes;
        status = convert_rows(row, &crc, c, t, target, sample[i], 1, err);
        if (!status && memcmp(row, there, target->row_bytes) != 0) {
            status = cca_fail(err, CCA_BAD_OUTPUT, "%s: read back, row %lld of tensor '%s' differs",
                              name, (long long)sample[i], t->name);
        }
    }
    free(row);
    return status;
}

static cca_status check_file(const cca_gguf *file, const cca_source *source,
                             const cca_target *targets, cca_error *err) {
    bool checked;
    cca_config config;
    cca_status status = cca_gguf_check_crc(&checked, file, err);
    if (status == CCA_BAD_MODEL || (!status && !checked)) {
        return cca_fail(err, CCA_BAD_OUTPUT, "%s: read back, its checksums differ",
                        cca_gguf_name(file));
    }
    converter c;
    if (!status) status = converter_new(&c, source, 1, err);
    if (status) return status;
    for (int64_t i = 0; i < source->n_tensors && !status; i++) {
        status = check_tensor(file, &c, i, &targets[i], err);
    }
    converter_free(&c);
    return !status ? cca_config_read(&config, file, err) : status;
}

cca_status cca_convert_check(const char *path, const cca_source *source, const cca_target *targets,
                             cca_error *err) {
    cca_gguf *file;
    cca_status status = cca_gguf_open(&file, path, err);
    if (status == CCA_BAD_MODEL) status = CCA_BAD_OUTPUT;
    if (!status) status = check_file(file, source, targets, err);
    cca_gguf_close(file);
    return status;
}
