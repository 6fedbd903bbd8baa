/* What the two halves of the reader of Hugging Face folders share. */
#ifndef CCA_HF_H
#define CCA_HF_H

#include "export/json.h"
#include "export/source.h"

/* Fills in source->config (but tied and vocabulary apart from tokenizers), text.bos, eos and
 * ends, and divisors of RoPE from config.json. *tie is 1 or 0 where the file says whether the
 * output matrix is the embedding, -1 where it does not. What would run wrongly is refused by
 * name. */
cca_status cca_hf_read_config(cca_source *source, int *tie, const json_t *config, const char *path,
                              const cca_export_options *options, cca_error *err);

/* RoPE of source->config, whose sizes and family are known, and its divisors. config: of the text.
 */
void cca_hf_read_rope(cca_source *source, cca_json_reader *r, const json_t *config);

/* Adds the end tokens that a config.json or generation_config.json names. */
void cca_hf_add_ends(cca_source_text *text, cca_json_reader *r, const json_t *config);

#endif
