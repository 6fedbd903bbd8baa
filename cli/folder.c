#include "cli/folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

cca_status folder_of(char **out, const char *variable, const char *under_home, const char *what,
                     cca_error *err) {
    const char *named = getenv(variable), *home = getenv("HOME");
    int n;
    *out = NULL;
    if (named && *named == '/') {
        n = asprintf(out, "%s/cca", named);
    } else if (home && *home) {
        n = asprintf(out, "%s/%s/cca", home, under_home);
    } else {
        return cca_fail(err, CCA_USAGE, "neither %s nor HOME says where %s are", variable, what);
    }
    if (n >= 0) return CCA_OK;
    *out = NULL;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the folder of %s", what);
}

bool folder_make(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}
