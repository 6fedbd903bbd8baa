/* What users of llama.cpp type and this program calls otherwise, or does not have.
 *
 *     const char *hint = llama_cpp_option("ngl");    // "a model is on its device as a whole: …"
 *     if (hint) ... "unknown option -ngl: %s" ... */
#ifndef CCA_CLI_LLAMA_CPP_NAMES_H
#define CCA_CLI_LLAMA_CPP_NAMES_H

/* What is there for an option, given without its dashes, or for a program ("llama-cli" or "cli"),
 * in a few words; NULL for names that are not known. */
const char *llama_cpp_option(const char *name);
const char *llama_cpp_program(const char *name);

#endif
