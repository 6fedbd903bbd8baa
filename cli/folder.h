/* The folders of this user where the program keeps what it makes by itself.
 *
 *     char *path;
 *     folder_of(&path, "XDG_CACHE_HOME", ".cache", "sessions", &err);   // ~/.cache/cca
 *     if (folder_make(path)) ...
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

#endif
