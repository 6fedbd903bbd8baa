#include "cli/folder.h"

#include "base/whole_file.h"

#include <dirent.h>
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

/* What is synced in it later is nothing where its own name is lost. */
static bool make(const char *path) {
    bool made = mkdir(path, 0700) == 0;
    if (made) cca_whole_sync_name(path);
    return made;
}

bool folder_make(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        (void)make(path);
        *slash = '/';
    }
    return make(path) || errno == EEXIST;
}

/* ---- what is in a folder ---------------------------------------------------------------- */

static bool fits(const char *name, const char *prefix, const char *suffix) {
    size_t n = strlen(name), n_prefix = strlen(prefix), n_suffix = strlen(suffix);
    return name[0] != '.' && n >= n_prefix + n_suffix && memcmp(name, prefix, n_prefix) == 0 &&
           memcmp(name + n - n_suffix, suffix, n_suffix) == 0;
}

static bool push(file_names *names, const char *folder, const char *name) {
    if ((names->n & (names->n - 1)) == 0) { /* a power of two: as many as there is room for */
        size_t capacity = names->n ? 2 * names->n : 1;
        char **grown = realloc(names->paths, capacity * sizeof *grown);
        if (!grown) return false;
        names->paths = grown;
    }
    char **path = &names->paths[names->n];
    if (asprintf(path, "%s/%s", folder, name) < 0) return false;
    names->n++;
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

cca_status folder_list(file_names *out, const char *folder, const char *prefix, const char *suffix,
                       cca_error *err) {
    *out = (file_names){0};
    DIR *dir = opendir(folder);
    bool room = true;
    if (!dir) return CCA_OK;
    for (struct dirent *entry; room && (entry = readdir(dir));) {
        if (fits(entry->d_name, prefix, suffix)) room = push(out, folder, entry->d_name);
    }
    closedir(dir);
    if (!room) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for the names in it", folder);
    if (out->n > 1) qsort(out->paths, out->n, sizeof *out->paths, by_name);
    return CCA_OK;
}

void file_names_free(file_names *names) {
    for (size_t i = 0; i < names->n; i++) free(names->paths[i]);
    free(names->paths);
    *names = (file_names){0};
}
