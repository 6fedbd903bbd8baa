/* cca selftest: checks this build on this machine. */
#include "check/self_check.h"

#include "cli/cli.h"
#include "cli/signals.h"

#include <stddef.h>
#include <stdlib.h>

typedef struct selftest_options {
    model_options model;
    output_options output;
    term_options term;
} selftest_options;

static const arg_group groups[] = {
    {"Model", model_args, offsetof(selftest_options, model)},
    {"Output", output_args, offsetof(selftest_options, output)},
    {"Messages", term_args, offsetof(selftest_options, term)},
    {0},
};

typedef struct testing {
    const selftest_options *o;
    output out;
    json_t *checks; /* for --json */
    int n_passed, n_failed, n_skipped;
} testing;

static const char *status_of(const cca_check *c) {
    return c->skipped ? "skipped" : c->passed ? "ok" : "failed";
}

static void show(void *user, const cca_check *c) {
    testing *t = user;
    cca_error ignored;
    t->n_skipped += c->skipped != NULL;
    t->n_passed += !c->skipped && c->passed;
    t->n_failed += !c->passed;
    if (t->o->output.json) {
        json_array_append_new(t->checks,
                              json_pack("{s:s, s:s, s:o, s:o, s:s?}", "name", c->name, "status",
                                        status_of(c), "difference",
                                        output_real(!c->skipped, c->difference), "bound",
                                        output_real(!c->skipped, c->bound), "skipped", c->skipped));
        return;
    }
    if (c->skipped) {
        output_printf(&t->out, "%-7s %-44s %s\n", status_of(c), c->name, c->skipped);
    } else if (c->bound == 0) {
        output_printf(&t->out, "%-7s %-44s %s\n", status_of(c), c->name,
                      c->passed ? "the same bits" : "other bits");
    } else {
        output_printf(&t->out, "%-7s %-44s %.2g, at most %.2g\n", status_of(c), c->name,
                      c->difference, c->bound);
    }
    (void)output_flush(&t->out, &ignored); /* what fails sticks, and is told at the end */
}

/* The model's path; none is needed where none was named. */
static cca_status find_model(char **out, const selftest_options *o, term *t, cca_error *err) {
    cca_status status = cli_model_path(out, o->model.model, err);
    if (!status || o->model.model || status != CCA_BAD_MODEL) return status;
    *out = NULL;
    term_warn(t, "no model is there: only kernels are checked");
    return CCA_OK;
}

static void print_end(testing *t, const term *messages) {
    if (!t->o->output.json) {
        output_printf(&t->out, "%d passed, %d failed, %d skipped\n", t->n_passed, t->n_failed,
                      t->n_skipped);
        return;
    }
    output_json(&t->out,
                json_pack("{s:s, s:O, s:i, s:i, s:i, s:O}", "schema", "cca.selftest.1", "checks",
                          t->checks, "passed", t->n_passed, "failed", t->n_failed, "skipped",
                          t->n_skipped, "warnings", messages->warnings));
}

static cca_status selftest(testing *t, term *messages, cca_error *err) {
    char *path = NULL;
    cca_error close_error;
    cca_status status = find_model(&path, t->o, messages, err);
    cca_selftest_options options = {.model = path,
                                    .device = t->o->model.device,
                                    .n_threads = cli_threads(t->o->model.threads),
                                    .stop = signals_stop()};
    if (!status && t->o->model.fp8) {
        status = cca_fail(err, CCA_USAGE, "--fp8: the selftest has no bounds for 8-bit floats");
    }
    if (!status) status = output_open(&t->out, t->o->output.file, err);
    if (!status) {
        status = cca_selftest(&options, show, t, err);
        bool done = !status || status == CCA_CHECK_FAILED;
        if (done) print_end(t, messages);
        cca_status closed = output_close(&t->out, done, &close_error);
        if (closed && done) {
            *err = close_error;
            status = closed;
        }
    }
    free(path);
    return status;
}

static cca_status run(const void *options, cca_error *err) {
    testing t = {.o = options, .checks = json_array()};
    term messages;
    term_open(&messages, &t.o->term);
    cca_status status = t.checks ? selftest(&t, &messages, err)
                                 : cca_fail(err, CCA_NO_MEMORY, "no memory for the record");
    term_close(&messages);
    json_decref(t.checks);
    return status;
}

const cli_command cli_selftest = {
    .name = "selftest",
    .summary = "checks this build on this machine",
    .usage = "[-m MODEL] [options]",
    .notes =
        "Compares each kernel variant that this processor can run with the plain one, and runs the "
        "model in ways that must agree: groups of one, and recall of everything, against full "
        "attention, recall token by token, chunks of other "
        "sizes, other numbers of threads, other kernels, the CPU against a GPU where there is one. "
        "A line a check, with the difference measured and the bound; exit 8 where one fails.",
    .groups = groups,
    .options_size = sizeof(selftest_options),
    .run = run,
};
