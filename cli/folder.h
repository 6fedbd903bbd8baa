/* The folders of this user where the program keeps what it makes by itself.
 *
 *     char *path;
 *     folder_of(&path, "XDG_CACHE_HOME", ".cache", "sessions", &err);   // ~/.cache/cca
 *     if (folder_make(path)) ...
 *     file_names names;
 *     folder_list(&names, path, "", ".gguf", &err);                     // what is in it
 *     file_names_free(&names);
 *     free(path); */
#ifndef CCA_CLI_FOLDER_H
#define CCA_CLI_FOLDER_H

#include "base/base.h"

/* "cca" in the folder that a variable of the environment names by an absolute path, else in the one
 * under the home folder; whether or not it is there. CCA_USAGE where neither is known (what is for
 * the message), CCA_NO_MEMORY; *out is NULL then. */
cca_status folder_of(char **out, const char *variable, const char *under_home, const char *what,
                     cca_error *err);
/* Makes the folder and those above it, for this user alone; true where it is there, else errno
 * tells why it is not. */
bool folder_make(char *path);

typedef struct file_names {
    char **paths;
    size_t n;
} file_names;

/* The files of a folder whose names begin and end so, as paths, by name; hidden ones are left out.
 * None where the folder cannot be read. No character of the folder's name has a meaning. Freeing is
 * due in any case. CCA_NO_MEMORY. */
cca_status folder_list(file_names *out, const char *folder, const char *prefix, const char *suffix,
                       cca_error *err);
void file_names_free(file_names *names);

#endif
