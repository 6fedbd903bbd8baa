/* How long a run would take on a device: the operations of a layer are timed there on random data,
 * for about a second, and summed over layers and chunks. No weights are read.
 *
 *     cca_forecaster *f;
 *     cca_forecast_new(&f, backend, n_threads, file, &config, 512, &err);  // times the products
 *     cca_forecast_attention(f, &state_options, 131072, &err);             // and attention
 *     double prefill_s = cca_forecast_prefill(f, 131072);
 *     double token_s = cca_forecast_decode(f, 131071);
 *     cca_forecast_free(f);
 *
 * Products are timed on some rows of each matrix where all of them would take long; attention on
 * some of the heads, at a few depths, between which the number of keys seen decides; and the link
 * over which a device has rows of the host. What is read from disk, and the memory that a system
 * hands out page by page, is not in it. */
#ifndef CCA_FORECAST_H
#define CCA_FORECAST_H

#include "model.h"

typedef struct cca_forecaster cca_forecaster;

/* Times everything but attention, with chunks of chunk_size tokens. n_threads: of a CPU, where a
 * part stands for all; 0 for a device that is timed as a whole. backend and config must outlive it.
 * CCA_NO_MEMORY, CCA_BAD_MODEL (a tensor is missing), what the backend reports. */
cca_status cca_forecast_new(cca_forecaster **out, cca_backend *backend, int n_threads,
                            const cca_gguf *file, const cca_config *config, int64_t chunk_size,
                            cca_error *err);
void cca_forecast_free(cca_forecaster *forecast);

/* Times attention of runs of up to n_tokens; takes the place of what was timed before. The chunk
 * size is that of cca_forecast_new. */
cca_status cca_forecast_attention(cca_forecaster *forecast, const cca_state_options *options,
                                  int64_t n_tokens, cca_error *err);

/* Seconds of prefilling n tokens from position 0, with the logits of the last one. */
double cca_forecast_prefill(const cca_forecaster *forecast, int64_t n);
/* Seconds of one token at a position, with its logits. */
double cca_forecast_decode(const cca_forecaster *forecast, int64_t pos);

#endif
