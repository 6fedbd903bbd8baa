/* From a source's tensors to the bytes of a model file, a few rows at a time.
 *
 *     cca_target *targets;
 *     cca_targets_new(&targets, &source, &options, &err);   // types and sizes
 *     ... announce the tensors to the writer ...
 *     cca_convert(writer, &source, targets, crcs, &options, &err);
 *     cca_convert_check(path, &source, targets, &err);
 *     free(targets); */
#ifndef CCA_CONVERT_H
#define CCA_CONVERT_H

#include "export/gguf_write.h"
#include "export/source.h"

/* What becomes of a tensor of the source. */
typedef struct cca_target {
    cca_dtype type;
    size_t row_bytes;
    uint64_t bytes;
    /* The tensor of the file, which may hold the rows of several: its number and name, bytes of
     * others before these, and of all. */
    uint64_t index, before, whole;
    char name[CCA_TENSOR_NAME];
} cca_target;

/* One target a tensor, of mixture.h's type; release with free. Vectors are F32. */
cca_status cca_targets_new(cca_target **out, const cca_source *source,
                           const cca_export_options *options, cca_error *err);

/* Converts and writes all tensors; crcs gets the checksum of each of the file. CCA_BAD_MODEL for a
 * value that is not finite or too large for its type, CCA_BAD_OUTPUT, CCA_NO_MEMORY,
 * CCA_INTERRUPTED. */
cca_status cca_convert(cca_gguf_writer *w, const cca_source *source, const cca_target *targets,
                       uint32_t *crcs, const cca_export_options *options, cca_error *err);

/* Reads the file at path back: its header, all checksums, and rows of
 * each tensor, which are compared with the source. CCA_BAD_OUTPUT where something differs,
 * CCA_BAD_MODEL where this program would refuse to run the model. */
cca_status cca_convert_check(const char *path, const cca_source *source, const cca_target *targets,
                             cca_error *err);

#endif
