/* Which type each matrix of an exported model gets.
 *
 *     cca_export_options o = {.has_type = true};
 *     if (!cca_export_type_parse(&o, "Q4_K_M")) ...          // o.type, o.mixture
 *     cca_dtype type = cca_export_type_of(&config, role, layer, cols, own, &o);
 *
 * Mixtures are llama-quantize's: most matrices of one type, and Q6_K where few bits cost most. */
#ifndef CCA_MIXTURE_H
#define CCA_MIXTURE_H

#include "export/options.h"
#include "layer.h"

/* The names that there are, with | between them. */
#define CCA_EXPORT_TYPES "f32|f16|bf16|q8_0|q4_0|q4_k|q5_k|q6_k|q4_k_m|q5_k_m"

/* Sets the type, and the mixture where the name is one's, in lower or upper case; false for others.
 */
bool cca_export_type_parse(cca_export_options *out, const char *name);

/* The type of a matrix that is of type own in the source, with rows of cols values: where blocks
 * do not fit these, the type that the table of types has in place of it. */
cca_dtype cca_export_type_of(const cca_config *config, cca_role role, int64_t layer, int64_t cols,
                             cca_dtype own, const cca_export_options *options);
/* The same as if all blocks fitted. */
cca_dtype cca_export_type_wanted(const cca_config *config, cca_role role, int64_t layer,
                                 cca_dtype own, const cca_export_options *options);

#endif
