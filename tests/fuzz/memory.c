/* Tries each file named on standard input, one a line, in a process of its own, and measures what
 * the process takes at its peak, program and libraries included:
 *
 *     find tests/fuzz/seeds/gguf -type f | memory_gguf
 *
 * Prints the number of inputs, the highest peak in MB, the highest share of what an input may take
 * in percent, and the input that takes it. Built without sanitizers, which need memory of their
 * own. The exit status is 1 where an input takes too much or its process does not end well. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS_AN_INPUT = 60 };

static void try_file(const char *path, size_t size) {
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size + 1);
    alarm(SECONDS_AN_INPUT);
    if (!file || !data || fread(data, 1, size, file) != size) _exit(2);
    fclose(file);
    fuzz_one(data, size);
    _exit(0);
}

/* Peak of the process that tries the file, in bytes; *status is how it ended. */
static size_t peak_of(const char *path, size_t size, int *status) {
    struct rusage usage = {0};
    pid_t child = fork();
    if (child == 0) try_file(path, size);
    if (child < 0 || wait4(child, status, 0, &usage) != child) *status = -1;
    return (size_t)usage.ru_maxrss * 1024;
}

int main(void) {
    char path[4096], worst[4096] = "-";
    long n = 0, bad = 0;
    size_t highest = 0;
    double share = 0;
    while (fgets(path, sizeof path, stdin)) {
        struct stat info;
        int status = 0;
        path[strcspn(path, "\n")] = '\0';
        if (stat(path, &info) != 0) continue;
        size_t size = (size_t)info.st_size, peak = peak_of(path, size, &status);
        double of_limit = (double)peak / (double)fuzz_memory(size);
        if (status != 0 || of_limit > 1) {
            fprintf(stderr, "%s: %zu bytes, peak %.1f MB, status %d\n", path, size,
                    (double)peak / (1 << 20), status);
            bad++;
        }
        if (of_limit > share) snprintf(worst, sizeof worst, "%s", path);
        if (of_limit > share) share = of_limit;
        if (peak > highest) highest = peak;
        n++;
    }
    printf("%7ld %8.1f %6.0f%%  %s\n", n, (double)highest / (1 << 20), 100 * share, worst);
    return bad > 0 || n == 0;
}
