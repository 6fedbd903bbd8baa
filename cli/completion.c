/* cca completion: scripts for shells, made from the option tables. */
#include "cli/cli.h"

#include <stddef.h>
#include <string.h>

typedef struct completion_options {
    arg_list shell;
    output_options output;
} completion_options;

static const arg_option own_args[] = {
    {"shell", .kind = ARG_OPERAND, .value = "bash|zsh|fish",
     .at = offsetof(completion_options, shell), .max = 1,
     .help = "the shell to write a script for"},
    {0},
};

static const arg_group groups[] = {
    {"Shell", own_args, 0},
    {"Output", output_args, offsetof(completion_options, output)},
    {0},
};

/* ---- walking over the tables ----------------------------------------------------------- */

typedef void (*option_writer)(output *out, const cli_command *command, const arg_option *option);

static void each_option(output *out, const cli_command *command, option_writer write) {
    for (const arg_group *g = command->groups; g && g->title; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            if (o->kind != ARG_OPERAND) write(out, command, o);
        }
    }
}

typedef void (*command_writer)(output *out, const cli_command *command);

static void each_command(output *out, command_writer write) {
    size_t n;
    const cli_command *const *commands = cli_commands(&n);
    for (size_t i = 0; i < n; i++) write(out, commands[i]);
}

/* Text with a backslash before each character of special. */
static void write_escaped(output *out, const char *text, const char *special) {
    for (; *text; text++) {
        if (strchr(special, *text)) output_write(out, "\\", 1);
        output_write(out, text, 1);
    }
}

/* "a|b|c" with other separators. */
static void write_choices(output *out, const char *choices) {
    for (; *choices; choices++) output_write(out, *choices == '|' ? " " : choices, 1);
}

/* ---- bash ------------------------------------------------------------------------------ */

static void bash_name(output *out, const cli_command *command) {
    output_printf(out, "%s ", command->name);
}

static void bash_choices(output *out, const cli_command *command, const arg_option *o) {
    if (o->kind == ARG_FLAG) return;
    output_printf(out, "    %s:--%s", command->name, o->name);
    if (o->brief) output_printf(out, " | %s:-%s", command->name, o->brief);
    if (o->alias) output_printf(out, " | %s:--%s", command->name, o->alias);
    output_printf(out, ") words=\"");
    if (o->kind == ARG_CHOICE) write_choices(out, o->choices);
    output_printf(out, "\" value=1 ;;\n");
}

static void bash_values(output *out, const cli_command *command) {
    each_option(out, command, bash_choices);
}

static void bash_option(output *out, const cli_command *command, const arg_option *o) {
    (void)command;
    output_printf(out, "--%s ", o->name);
    if (o->brief) output_printf(out, "-%s ", o->brief);
}

static void bash_options(output *out, const cli_command *command) {
    output_printf(out, "    %s) words=\"--help ", command->name);
    each_option(out, command, bash_option);
    output_printf(out, "\" ;;\n");
}

static void write_bash(output *out) {
    output_printf(out, "# Completion of cca for bash: source it, or put it into\n"
                       "# ~/.local/share/bash-completion/completions/cca\n"
                       "_cca() {\n"
                       "    local words= value= cur=${COMP_WORDS[COMP_CWORD]}\n"
                       "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                       "        COMPREPLY=($(compgen -W \"");
    each_command(out, bash_name);
    output_printf(out, "\" -- \"$cur\"))\n"
                       "        return\n"
                       "    fi\n"
                       "    case ${COMP_WORDS[1]}:${COMP_WORDS[COMP_CWORD - 1]} in\n");
    each_command(out, bash_values);
    output_printf(out, "    esac\n"
                       "    [ -n \"$value\" ] || [[ $cur != -* ]] || case ${COMP_WORDS[1]} in\n");
    each_command(out, bash_options);
    output_printf(out, "    esac\n"
                       "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                       "}\n"
                       "complete -o default -F _cca cca\n");
}

/* ---- zsh ------------------------------------------------------------------------------- */

static const char zsh_special[] = "[]:\\";

/* Inside single quotes, which a text ends, quotes and begins again. */
static void write_quoted(output *out, const char *text, const char *special) {
    for (; *text; text++) {
        char one[2] = {*text, '\0'};
        if (*text == '\'')
            output_printf(out, "'\\''");
        else
            write_escaped(out, one, special);
    }
}

static void zsh_name(output *out, const cli_command *command) {
    output_printf(out, "        '%s:", command->name);
    write_quoted(out, command->summary, ":");
    output_printf(out, "'\n");
}

static void zsh_spelling(output *out, const arg_option *o, const char *dashes, const char *name) {
    output_printf(out, " \\\n            '*%s%s[", dashes, name);
    write_quoted(out, o->help, zsh_special);
    output_printf(out, "]");
    if (o->kind != ARG_FLAG) {
        output_printf(out, ":");
        write_quoted(out, o->value, zsh_special);
        output_printf(out, ":");
        if (o->kind == ARG_CHOICE) {
            output_printf(out, "(");
            write_choices(out, o->choices);
            output_printf(out, ")");
        } else if (strstr(o->value, "FILE")) {
            output_printf(out, "_files");
        }
    }
    output_printf(out, "'");
}

static void zsh_option(output *out, const cli_command *command, const arg_option *o) {
    (void)command;
    zsh_spelling(out, o, "--", o->name);
    if (o->brief) zsh_spelling(out, o, "-", o->brief);
}

static void zsh_options(output *out, const cli_command *command) {
    output_printf(out, "    %s)\n        _arguments '*:file:_files'", command->name);
    each_option(out, command, zsh_option);
    output_printf(out, "\n        ;;\n");
}

static void write_zsh(output *out) {
    output_printf(out, "#compdef cca\n"
                       "# Completion of cca for zsh: put it as _cca into a folder of $fpath.\n"
                       "_cca() {\n"
                       "    local -a commands=(\n");
    each_command(out, zsh_name);
    output_printf(out, "    )\n"
                       "    if (( CURRENT == 2 )); then\n"
                       "        _describe command commands\n"
                       "        return\n"
                       "    fi\n"
                       "    local command=$words[2]\n"
                       "    shift words\n"
                       "    (( CURRENT-- ))\n"
                       "    case $command in\n");
    each_command(out, zsh_options);
    output_printf(out, "    esac\n"
                       "}\n"
                       "compdef _cca cca\n");
}

/* ---- fish ------------------------------------------------------------------------------ */

static void fish_name(output *out, const cli_command *command) {
    output_printf(out, "complete -c cca -n __fish_use_subcommand -f -a %s -d '", command->name);
    write_escaped(out, command->summary, "'\\");
    output_printf(out, "'\n");
}

static void fish_option(output *out, const cli_command *command, const arg_option *o) {
    output_printf(out, "complete -c cca -n '__fish_seen_subcommand_from %s' -l %s", command->name,
                  o->name);
    if (o->brief) output_printf(out, " -%c %s", o->brief[1] ? 'o' : 's', o->brief);
    if (o->kind == ARG_CHOICE) {
        output_printf(out, " -x -a '");
        write_choices(out, o->choices);
        output_printf(out, "'");
    } else if (o->kind != ARG_FLAG) {
        output_printf(out, strstr(o->value, "FILE") ? " -r" : " -x");
    }
    output_printf(out, " -d '");
    write_escaped(out, o->help, "'\\");
    output_printf(out, "'\n");
}

static void fish_options(output *out, const cli_command *command) {
    each_option(out, command, fish_option);
}

static void write_fish(output *out) {
    output_printf(
        out, "# Completion of cca for fish: put it into ~/.config/fish/completions/cca.fish\n");
    each_command(out, fish_name);
    each_command(out, fish_options);
}

/* ---- the command ----------------------------------------------------------------------- */

static cca_status run(const void *options, cca_error *err) {
    static const struct {
        const char *name;
        void (*write)(output *out);
    } shells[] = {{"bash", write_bash}, {"zsh", write_zsh}, {"fish", write_fish}};
    const completion_options *o = options;
    const char *name = o->shell.n > 0 ? o->shell.items[0].text : "";
    size_t i = 0;
    output out;
    while (i < 3 && strcmp(shells[i].name, name) != 0) i++;
    if (i == 3) return cca_fail(err, CCA_USAGE, "completion: for which shell? bash, zsh or fish");
    cca_status status = output_open(&out, o->output.file, err);
    if (status) return status;
    shells[i].write(&out);
    return output_close(&out, true, err);
}

const cli_command cli_completion = {
    .name = "completion",
    .summary = "a script that completes commands and options in a shell",
    .usage = "bash|zsh|fish",
    .notes = "For example: cca completion bash >~/.local/share/bash-completion/completions/cca",
    .groups = groups,
    .options_size = sizeof(completion_options),
    .run = run,
};
