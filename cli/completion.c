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

/* NULL where a command has none. */
static const arg_option *operand_of(const cli_command *command) {
    for (const arg_group *g = command->groups; g && g->title; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            if (o->kind == ARG_OPERAND) return o;
        }
    }
    return NULL;
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

/* ---- values ---------------------------------------------------------------------------- */

static void command_name(output *out, const cli_command *command) {
    output_printf(out, "%s ", command->name);
}

/* "a|b|c" that a value may be or is likely to be; NULL: anything. */
static const char *words_of(const arg_option *o) {
    if (o->kind == ARG_CHOICE) return o->choices;
    if (o->suggest) return o->suggest;
    return o->value && strchr(o->value, '|') ? o->value : NULL;
}

static bool is_command(const arg_option *o) {
    return o->value && strcmp(o->value, "COMMAND") == 0;
}

/* An operand that may stand again behind its words is a file there. */
static bool is_file(const arg_option *o) {
    if (o->kind == ARG_FLAG) return false;
    if (o->kind == ARG_OPERAND && words_of(o)) return o->max > 1;
    return strstr(o->value, "FILE") || strcmp(o->value, "IN") == 0;
}

/* With other separators. */
static void write_words(output *out, const arg_option *o, const char *special) {
    const char *words = words_of(o);
    if (is_command(o)) each_command(out, command_name);
    for (; words && *words; words++) {
        char one[2] = {*words == '|' ? ' ' : *words, '\0'};
        write_escaped(out, one, special);
    }
}

/* ---- bash ------------------------------------------------------------------------------ */

static void bash_value(output *out, const arg_option *o) {
    output_printf(out, "words=\"");
    write_words(out, o, "");
    output_printf(out, "\"%s", is_file(o) ? " files=1" : "");
}

static void bash_choices(output *out, const cli_command *command, const arg_option *o) {
    if (o->kind == ARG_FLAG) return;
    output_printf(out, "    %s:--%s", command->name, o->name);
    if (o->brief) output_printf(out, " | %s:-%s", command->name, o->brief);
    if (o->alias) output_printf(out, " | %s:--%s", command->name, o->alias);
    output_printf(out, ") value=1 ");
    bash_value(out, o);
    output_printf(out, " ;;\n");
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
    output_printf(out, "    %s:-*) words=\"--help ", command->name);
    each_option(out, command, bash_option);
    output_printf(out, "\" ;;\n");
    const arg_option *operand = operand_of(command);
    if (!operand) return;
    output_printf(out, "    %s:*) ", command->name);
    bash_value(out, operand);
    output_printf(out, " ;;\n");
}

/* "--option=value" comes as three words. */
static void write_bash(output *out) {
    output_printf(out, "# Completion of cca for bash: source it, or put it into\n"
                       "# ~/.local/share/bash-completion/completions/cca\n"
                       "_cca() {\n"
                       "    local words= value= files= at=$COMP_CWORD\n"
                       "    local cur=${COMP_WORDS[at]} prev=${COMP_WORDS[at - 1]}\n"
                       "    [ \"$cur\" != = ] || cur=\n"
                       "    [ \"$prev\" != = ] || prev=${COMP_WORDS[at - 2]}\n"
                       "    COMPREPLY=()\n"
                       "    if [ \"$at\" -eq 1 ]; then\n"
                       "        COMPREPLY=($(compgen -W \"");
    each_command(out, command_name);
    output_printf(out, "\" -- \"$cur\"))\n"
                       "        return\n"
                       "    fi\n"
                       "    case ${COMP_WORDS[1]}:$prev in\n");
    each_command(out, bash_values);
    output_printf(out, "    esac\n"
                       "    [ -n \"$value\" ] || case ${COMP_WORDS[1]}:$cur in\n");
    each_command(out, bash_options);
    output_printf(out, "    esac\n"
                       "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                       "    if [ -n \"$files\" ] && [ ${#COMPREPLY[@]} -eq 0 ]; then\n"
                       "        compopt -o filenames 2>/dev/null\n"
                       "        local IFS=$'\\n'\n"
                       "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
                       "    fi\n"
                       "}\n"
                       "complete -F _cca cca\n");
}

/* ---- zsh ------------------------------------------------------------------------------- */

static const char zsh_special[] = "[]:\\";

/* Inside single quotes, which a text ends, quotes and begins again. */
static void write_quoted(output *out, const char *text, const char *special) {
    for (; *text; text++) {
        char one[2] = {*text, '\0'};
        if (*text == '\'') {
            output_printf(out, "'\\''");
        } else {
            write_escaped(out, one, special);
        }
    }
}

static void zsh_name(output *out, const cli_command *command) {
    output_printf(out, "        '%s:", command->name);
    write_quoted(out, command->summary, ":");
    output_printf(out, "'\n");
}

/* ":message:what completes it" */
static void zsh_value(output *out, const arg_option *o) {
    output_printf(out, ":");
    write_quoted(out, o->value, zsh_special);
    output_printf(out, ":");
    if (words_of(o) || is_command(o)) {
        output_printf(out, "(");
        write_words(out, o, ":");
        output_printf(out, ")");
    } else if (is_file(o)) {
        output_printf(out, "_files");
    }
}

static void zsh_spelling(output *out, const arg_option *o, const char *dashes, const char *name) {
    output_printf(out, " \\\n            '*%s%s[", dashes, name);
    write_quoted(out, o->help, zsh_special);
    output_printf(out, "]");
    if (o->kind != ARG_FLAG) zsh_value(out, o);
    output_printf(out, "'");
}

static void zsh_option(output *out, const cli_command *command, const arg_option *o) {
    (void)command;
    zsh_spelling(out, o, "--", o->name);
    if (o->alias) zsh_spelling(out, o, "--", o->alias);
    if (o->brief) zsh_spelling(out, o, "-", o->brief);
}

static void zsh_options(output *out, const cli_command *command) {
    const arg_option *operand = operand_of(command);
    output_printf(out, "    %s)\n        _arguments '--help[the options of the command]'",
                  command->name);
    if (operand) {
        output_printf(out, operand->max > 1 && !words_of(operand) ? " '*" : " '1");
        zsh_value(out, operand);
        output_printf(out, "'");
        if (words_of(operand) && is_file(operand)) output_printf(out, " '*:FILE:_files'");
    }
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
    output_printf(out, "complete -c cca -n __fish_use_subcommand -a %s -d '", command->name);
    write_escaped(out, command->summary, "'\\");
    output_printf(out, "'\n");
}

/* What completes a value: words, files (-F lifts the -f of the whole command), or nothing. */
static void fish_value(output *out, const arg_option *o) {
    if (words_of(o) || is_command(o)) {
        output_printf(out, " -a '");
        write_words(out, o, "");
        output_printf(out, "'");
    }
    bool needed = o->kind != ARG_OPERAND;
    if (is_file(o)) {
        output_printf(out, needed ? " -r -F" : " -F");
    } else {
        output_printf(out, needed ? " -x" : " -f");
    }
}

static void fish_option(output *out, const cli_command *command, const arg_option *o) {
    output_printf(out, "complete -c cca -n '__fish_seen_subcommand_from %s' -l %s", command->name,
                  o->name);
    if (o->alias) output_printf(out, " -l %s", o->alias);
    if (o->brief) output_printf(out, " -%c %s", o->brief[1] ? 'o' : 's', o->brief);
    if (o->kind != ARG_FLAG) fish_value(out, o);
    output_printf(out, " -d '");
    write_escaped(out, o->help, "'\\");
    output_printf(out, "'\n");
}

static void fish_options(output *out, const cli_command *command) {
    const arg_option *operand = operand_of(command);
    if (operand && (words_of(operand) || is_command(operand) || is_file(operand))) {
        output_printf(out, "complete -c cca -n '__fish_seen_subcommand_from %s'", command->name);
        fish_value(out, operand);
        output_printf(out, "\n");
    }
    each_option(out, command, fish_option);
}

static void write_fish(output *out) {
    output_printf(out,
                  "# Completion of cca for fish: put it into ~/.config/fish/completions/cca.fish\n"
                  "complete -c cca -f\n");
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
