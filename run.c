/* main(): finds the command, reads its options, runs it, reports its failure. */
#include "base/again.h"
#include "cli/cli.h"
#include "cli/signals.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A closed standard stream would give its number to the next file that is opened. */
static void hold_standard_streams(void) {
    static const int flags[] = {O_RDONLY, O_RDONLY, O_RDWR}; /* writing to 1 must fail */
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) continue;
        if (cca_open_again("/dev/null", flags[fd], 0) != fd) _exit(CCA_BAD_OUTPUT);
    }
}

/* Reads the options and runs; argv[0] is the command's name. */
static cca_status run_command(const cli_command *command, int argc, char **argv, cca_error *err) {
    bool help = false;
    void *options = calloc(1, command->options_size);
    if (!options) return cca_fail(err, CCA_NO_MEMORY, "no memory");
    cca_status status = args_parse(options, command->groups, argc, argv, &help, err);
    if (!status) status = help ? cli_print_help(command, err) : command->run(options, err);
    args_free(options, command->groups);
    free(options);
    return status;
}

/* The name that "cca -h", "cca --version" and the like stand for. */
static const char *command_name(const char *arg) {
    if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) return "help";
    if (strcmp(arg, "--version") == 0) return "version";
    return arg;
}

int main(int argc, char **argv) {
    cca_error err = {.text = ""};
    hold_standard_streams();
    signals_install();
    if (argc < 2) {
        cli_print_overview(stderr);
        return CCA_USAGE;
    }
    const char *name = command_name(argv[1]);
    const cli_command *command = cli_find(name);
    cca_status status =
        command ? run_command(command, argc - 1, argv + 1, &err) : cli_unknown(name, &err);
    if (status == CCA_INTERRUPTED && *signals_stop()) status = (cca_status)(128 + *signals_stop());
    if (status && status != CLI_PIPE_CLOSED) {
        fprintf(stderr, "cca%s%s: %s\n", command ? " " : "", command ? name : "", err.text);
        if (status == CCA_USAGE && command) fprintf(stderr, "(cca help %s)\n", name);
    }
    return (int)status;
}
