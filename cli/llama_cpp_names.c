#include "cli/llama_cpp_names.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct entry {
    const char *names; /* with a blank before and behind each */
    const char *hint;
} entry;

static const entry options[] = {
    {" ngl gpu-layers n-gpu-layers ",
     "a model is on its device as a whole; --device cpu or cuda chooses"},
    {" sm split-mode ts tensor-split mg main-gpu ", "a model is on one device: --device cuda:N"},
    {" fa flash-attn ", "attention is always computed so; --attn chooses which"},
    {" r reverse-prompt ", "--stop TEXT ends an answer before a text"},
    {" n-predict ", "-n N bounds an answer"},
    {" keep context-shift no-context-shift ",
     "nothing is dropped of a text, so nothing is to be kept"},
    {" b batch-size ", "-ub, --ubatch-size is the one size of chunks"},
    {" tb threads-batch Cb Cr C cpu-mask ", "-t, --threads is for all that is computed"},
    {" cnv conversation no-cnv no-conversation i interactive interactive-first if ins instruct ",
     "cca chat is a conversation, cca ask -i takes questions, cca generate neither"},
    {" st single-turn ", "cca ask answers, and ends"},
    {" mli multiline-input ", "in cca chat \"\"\" begins and ends a message of several lines"},
    {" no-mmap mmap mlock numa no-repack direct-io ", "the model file is always mapped"},
    {" nkvo no-kv-offload kv-unified kvu ", "keys and values are on the model's device"},
    {" rope-scaling rope-scale rope-freq-base rope-freq-scale yarn-orig-ctx yarn-ext-factor "
     "yarn-attn-factor yarn-beta-slow yarn-beta-fast ",
     "RoPE is as the model file says; --beyond-trained lifts the limit of its length"},
    {" hf hfr hf-repo hff hf-file mu model-url dr docker-repo hft hf-token offline ",
     "nothing is downloaded: -m FILE"},
    {" typical mirostat mirostat-lr mirostat-ent xtc-probability xtc-threshold dynatemp-range "
     "dynatemp-exp presence-penalty frequency-penalty dry-multiplier dry-base dry-allowed-length "
     "dry-penalty-last-n dry-sequence-breaker samplers sampling-seq sampler-seq top-nsigma l "
     "logit-bias ",
     "sampling has --temp, --top-k, --top-p, --min-p and --repeat-penalty"},
    {" grammar grammar-file j json-schema jf json-schema-file ",
     "answers are not bound to a grammar"},
    {" jinja no-jinja chat-template-file reasoning-format ",
     "the model file's own template is run; --chat-template NAME takes another"},
    {" sysf system-prompt-file ", "-sys TEXT is the system text"},
    {" lora lora-scaled control-vector ", "adapters are to be merged into the weights before"},
    {" md model-draft ", "there is no model for drafts: --lookup N guesses from the text"},
    {" draft draft-n draft-max lookup-ngram-min lcs lcd ",
     "--lookup N guesses up to N tokens from the text"},
    {" draft-min draft-p-min ", "--lookup N guesses fewer tokens where they were wrong"},
    {" no-display-prompt display-prompt ", "a prompt is never repeated in the answer"},
    {" log-disable no-perf ", "-q says errors alone"},
    {" no-warmup warmup check-tensors simple-io sp ", "it is not needed here"},
    {" bf binary-file ", "-f FILE reads a text; NUL is a byte like any other"},
    {" prompt-cache-all prompt-cache-ro ", "--session FILE keeps a prompt's state"},
    {" ppl-stride ", "cca ppl --mode stride"},
    {" chunks ", "cca ppl takes all of its text"},
    {" np parallel cb cont-batching host port ", "there is no server"},
};

static const entry programs[] = {
    {" perplexity ", "it is cca ppl here"},
    {" main cli completion run simple infer ", "it is cca generate here, or cca chat"},
    {" quantize quantise convert convert_hf_to_gguf convert_hf_to_gguf.py ",
     "it is cca export here"},
    {" server serve ", "there is none here; cca ask -Q - answers the questions of a pipe"},
    {" batched-bench ", "it is cca bench here"},
    {" gguf show ", "it is cca info here"},
};

static const char *hint_of(const entry *entries, size_t n, const char *name) {
    size_t size = strlen(name);
    bool is_name = size > 0 && !strchr(name, ' ');
    for (size_t i = 0; i < n && is_name; i++) {
        for (const char *at = entries[i].names; (at = strstr(at, name)); at++) {
            if (at[-1] == ' ' && at[size] == ' ') return entries[i].hint;
        }
    }
    return NULL;
}

const char *llama_cpp_option(const char *name) {
    return hint_of(options, sizeof options / sizeof *options, name);
}

const char *llama_cpp_program(const char *name) {
    static const char prefix[] = "llama-";
    size_t size = sizeof prefix - 1;
    if (strncmp(name, prefix, size) == 0) name += size;
    return hint_of(programs, sizeof programs / sizeof *programs, name);
}
