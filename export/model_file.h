/* Making model files: from a Hugging Face folder, another GGUF file, a llama2.c file,
 * or random numbers.
 *
 *     cca_export_options o = {.input = "TinyLlama-1.1B", .output = "tiny.gguf",
 *                             .has_type = true, .type = CCA_Q8_0};
 *     cca_error err;
 *     if (cca_export(&o, &err) != CCA_OK) puts(err.text);
 *
 * The source is mapped and converted a few rows at a time, so memory does not grow with the
 * model. The output appears under its name only when it is complete: it is written to a
 * temporary file beside it, synced, read back, compared with the source and renamed. On any
 * failure the temporary file is removed and what stood there before is left as it was. */
#ifndef CCA_MODEL_FILE_H
#define CCA_MODEL_FILE_H

#include "export/options.h"

/* CCA_USAGE for options that make no sense (both or no input; g and s), CCA_BAD_MODEL for a
 * source that is missing, broken or would run wrongly, CCA_BAD_OUTPUT, CCA_NO_MEMORY,
 * CCA_INTERRUPTED. */
cca_status cca_export(const cca_export_options *options, cca_error *err);

#endif
