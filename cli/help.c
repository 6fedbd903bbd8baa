/* cca help, cca version; the list of commands. */
#include "cli/cli.h"
#include "cli/llama_cpp_names.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

enum { PAGE_WIDTH = 80 };

static const cli_command *const commands[] = {
    &cli_generate, &cli_ask,      &cli_chat,       &cli_ppl,     &cli_plan_command,
    &cli_bench,    &cli_tune,     &cli_info,       &cli_session, &cli_tokenize,
    &cli_export,   &cli_selftest, &cli_completion, &cli_help,    &cli_version,
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

const cli_command *const *cli_commands(size_t *n) {
    *n = N_COMMANDS;
    return commands;
}

const cli_command *cli_find(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    }
    return NULL;
}

cca_status cli_unknown(const char *name, cca_error *err) {
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++) names[i] = commands[i]->name;
    const char *hint = llama_cpp_program(name), *nearest = args_nearest(name, names, N_COMMANDS);
    if (!hint && !nearest) {
        return cca_fail(err, CCA_USAGE, "unknown command %s (cca -h lists all)", name);
    }
    return cca_fail(err, CCA_USAGE, "unknown command %s%s%s (cca -h lists all)", name,
                    hint ? ": " : "; the nearest one is ", hint ? hint : nearest);
}

void cli_print_overview(FILE *to) {
    fprintf(to, "cca %s: Llama models with CCA-Attention on long texts\n", CCA_VERSION);
    fprintf(to, "usage: cca COMMAND [options], for example\n"
                "  cca generate -m model.gguf -p 'Once upon a time' -n 64\n"
                "  cca ask -m model.gguf -f report.txt 'Who signed it?' 'What does it cost?'\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\n\"cca help COMMAND\" tells its options. Answers go to standard output, all else to\n"
          "standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 model file, 4 length,\n"
          "5 memory, 6 no UTF-8, 7 output, 8 check failed, 130 interrupted, 141 pipe closed\n",
          to);
}

/* Words on lines of PAGE_WIDTH. */
static void print_paragraph(FILE *to, const char *text) {
    size_t column = 0;
    while (*text) {
        size_t size = strcspn(text, " ");
        if (column > 0 && column + 1 + size > PAGE_WIDTH) {
            fputc('\n', to);
            column = 0;
        }
        fprintf(to, "%s%.*s", column > 0 ? " " : "", (int)size, text);
        column += size + (column > 0);
        text += size + (text[size] == ' ');
    }
    fputc('\n', to);
}

static void print_command(FILE *to, const cli_command *command) {
    fprintf(to, "cca %s: %s\n\nusage: cca %s %s\n", command->name, command->summary, command->name,
            command->usage);
    if (command->notes) {
        fputc('\n', to);
        print_paragraph(to, command->notes);
    }
    args_help(to, command->groups);
}

/* Prints through memory, so that a failed write is noticed. */
cca_status cli_print_help(const cli_command *command, cca_error *err) {
    char *text = NULL;
    size_t size = 0;
    output out;
    FILE *memory = open_memstream(&text, &size);
    if (!memory) return cca_fail(err, CCA_NO_MEMORY, "no memory");
    if (command) {
        print_command(memory, command);
    } else {
        cli_print_overview(memory);
    }
    if (fclose(memory) != 0) return cca_fail(err, CCA_NO_MEMORY, "no memory");
    output_open(&out, NULL, err);
    output_write(&out, text, size);
    free(text);
    return output_close(&out, true, err);
}

typedef struct help_options {
    arg_list topic;
} help_options;

static const arg_option help_args[] = {
    {"command", .kind = ARG_OPERAND, .value = "COMMAND", .at = offsetof(help_options, topic),
     .max = 1, .help = "a command's page"},
    {0},
};

static const arg_group help_groups[] = {{"Arguments", help_args, 0}, {0}};

static cca_status run_help(const void *options, cca_error *err) {
    const help_options *o = options;
    if (o->topic.n == 0) return cli_print_help(NULL, err);
    const cli_command *command = cli_find(o->topic.items[0].text);
    return command ? cli_print_help(command, err) : cli_unknown(o->topic.items[0].text, err);
}

const cli_command cli_help = {
    .name = "help",
    .summary = "the options of a command",
    .usage = "[COMMAND]",
    .groups = help_groups,
    .options_size = sizeof(help_options),
    .run = run_help,
};

static const arg_group no_groups[] = {{0}};

static cca_status run_version(const void *options, cca_error *err) {
    output out;
    (void)options;
    output_open(&out, NULL, err);
    output_printf(&out, "cca %s\n", CCA_VERSION);
    return output_close(&out, true, err);
}

const cli_command cli_version = {
    .name = "version",
    .summary = "the version of this program",
    .usage = "",
    .groups = no_groups,
    .options_size = 1,
    .run = run_version,
};
