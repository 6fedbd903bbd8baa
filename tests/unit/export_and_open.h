/* From a folder of tests/golden to an open model.
 *
 *     cca_engine *engine = test_export_and_open("tests/golden/models", "hf-llama", CCA_F32, 2); */
#ifndef CCA_TEST_EXPORT_AND_OPEN_H
#define CCA_TEST_EXPORT_AND_OPEN_H

#include "engine.h"
#include "export/model_file.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline cca_engine *test_export_and_open_on(const char *device, const char *folder,
                                                  const char *name, cca_dtype type, int n_threads) {
    char input[512], output[] = "/tmp/cca-test-model-XXXXXX";
    cca_error err;
    cca_engine *engine;
    int file = mkstemp(output);
    assert_true(file >= 0);
    close(file);
    snprintf(input, sizeof input, "%s/%s", folder, name);
    cca_export_options o = {.input = input, .output = output, .has_type = true, .type = type};
    if (cca_export(&o, &err) != CCA_OK) fail_msg("%s: %s", name, err.text);
    cca_engine_options eo = {.device = device, .n_threads = n_threads};
    if (cca_engine_open(&engine, output, &eo, &err) != CCA_OK) fail_msg("%s: %s", name, err.text);
    unlink(output);
    return engine;
}

static inline cca_engine *test_export_and_open(const char *folder, const char *name, cca_dtype type,
                                               int n_threads) {
    return test_export_and_open_on("cpu", folder, name, type, n_threads);
}

#endif
