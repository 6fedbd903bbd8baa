#include "text/known_tokens.h"

#include <string.h>

static const cca_known_token tokens[CCA_N_KNOWN_TOKENS] = {
    {"<|eot_id|>", true, true, 0},
    {"<|eom_id|>", true, true, 1},
    {"<|im_end|>", true, true, 2},
    {"<|endoftext|>", true, true, 3},
    {"<|end_of_text|>", true, true, 4},
    {"<|end|>", true, true, 5},
    {"<|return|>", true, true, 6},
    {"<|eot|>", true, true, 7},
    {"<|eom|>", true, true, 8},
    {"<|end_of_turn|>", true, true, 9},
    {"<end_of_turn>", true, true, 10},
    {"<end_of_utterance>", true, true, 11},
    {"<EOT>", true, true, 12},
    {"_<EOT>", true, true, 13},
    {"[EOT]", true, true, 14},
    {"<\uff5cend\u2581of\u2581sentence\uff5c>", true, true, 15},
    {"</s>", true, false, 16},
    {"<eos>", true, false, 17},
    {"[EOS]", true, false, 18},
    {"<|im_start|>", false, true, 19},
    {"<|start_header_id|>", false, true, 20},
    {"<|end_header_id|>", false, true, 21},
};

const cca_known_token *cca_known_token_find(const char *text, size_t size) {
    for (size_t k = 0; k < CCA_N_KNOWN_TOKENS; k++) {
        const char *name = tokens[k].name;
        if (strlen(name) == size && memcmp(name, text, size) == 0) return &tokens[k];
    }
    return NULL;
}
