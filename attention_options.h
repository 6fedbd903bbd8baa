/* The attention of a session: what options, the model file and the weights' training say of it, and
 * what a stored session says.
 *
 *     cca_policy policy;
 *     if (cca_attention_resolve(&policy, config, &options, &err)) ...
 *     char facts[CCA_ATTENTION_FACTS];
 *     cca_attention_facts(facts, &policy);     // "attention=cca\ngroup_size=16\n…" */
#ifndef CCA_ATTENTION_OPTIONS_H
#define CCA_ATTENTION_OPTIONS_H

#include "cca.h"
#include "engine.h"
#include "layer.h"

/* CCA_USAGE for options that make no sense. */
cca_status cca_attention_resolve(cca_policy *out, const cca_config *config,
                                 const cca_session_options *options, cca_error *err);

/* Of what a session's cache keeps: the window's keys and values, and those of rows behind it. */
typedef struct cca_cache_types {
    cca_dtype k, v, row_k, row_v;
} cca_cache_types;

/* CCA_USAGE for types that no cache has. */
cca_status cca_cache_types_parse(cca_cache_types *out, const cca_session_options *options,
                                 cca_error *err);

/* The kind in words: "cca", "recall", "full", "mean", "max", "window", "sinks". */
const char *cca_attention_name(const cca_policy *policy);

enum { CCA_ATTENTION_FACTS = 256 };
/* Lines "name=value\n" of what a stored session's attention is. */
void cca_attention_facts(char out[CCA_ATTENTION_FACTS], const cca_policy *policy);
/* The value, of *size bytes, that such lines have for a name, which n_name bytes spell. Files of
 * programs before recall have none of its names: its value says that there is none, then. */
const char *cca_attention_fact(int *size, const char *facts, const char *name, int n_name);

#endif
