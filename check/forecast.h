/* How long a run would take on a device: the operations of a layer are timed there on random data,
 * for about a second, and summed over layers and chunks. No weights are read.
 *
 *     cca_speed *speed;
 *     cca_speed_new(&speed, backend, n_threads, file, &config, 512, &err);  // times the products
 *     cca_speed_attention(speed, &state_options, 131072, &err);             // and attention
 *     double prefill_s = cca_speed_prefill(speed, 131072);
 *     double token_s = cca_speed_decode(speed, 131071);
 *     cca_speed_free(speed);
 *
 * Products are timed on some rows of each matrix where all of them would take long; attention on
 * some of the heads, at a few depths, between which the number of keys seen decides. What is read
 * from disk, and the memory that a system hands out page by page, is not in it. */
#ifndef CCA_SPEED_H
#define CCA_SPEED_H

#include "model.h"

typedef struct cca_speed cca_speed;

/* Times everything but attention, with chunks of chunk_size tokens. n_threads: of a CPU, where a
 * part stands for all; 0 for a device that is timed as a whole. backend and config must outlive it.
 * CCA_NO_MEMORY, CCA_BAD_MODEL (a tensor is missing), what the backend reports. */
cca_status cca_speed_new(cca_speed **out, cca_backend *backend, int n_threads, const cca_gguf *file,
                         const cca_config *config, int64_t chunk_size, cca_error *err);
void cca_speed_free(cca_speed *speed);

/* Times attention of runs of up to n_tokens; takes the place of what was timed before. The chunk
 * size is that of cca_speed_new. */
cca_status cca_speed_attention(cca_speed *speed, const cca_state_options *options, int64_t n_tokens,
                               cca_error *err);

/* Seconds of prefilling n tokens from position 0, with the logits of the last one. */
double cca_speed_prefill(const cca_speed *speed, int64_t n);
/* Seconds of one token at a position, with its logits. */
double cca_speed_decode(const cca_speed *speed, int64_t pos);

#endif
