/* What the fuzz targets share. A target is one file with one function:
 *
 *     void fuzz_one(const uint8_t *data, size_t size) { ... }
 *
 * libfuzzer.c calls it for each input that libFuzzer invents; available_memory.c calls it once for
 * each file that it is given, in a process of its own. Both see to it that no input takes more
 * memory than fuzz_memory. */
#ifndef CCA_FUZZ_H
#define CCA_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void fuzz_one(const uint8_t *data, size_t size);

/* The path of a file in memory with these bytes, for parsers that open their input themselves;
 * valid until the next call. */
const char *fuzz_file(const uint8_t *data, size_t size);

/* A folder in memory with the parts of an input as files of these names, of which there are up to
 * 8: a line "%%" ends a part, the last file gets all that is left, an empty one is not there. Each
 * call in a process has the same names, and changes the folder that the last one returned. */
const char *fuzz_folder(const char *const *names, size_t n, const uint8_t *data, size_t size);

/* Cuts off what stands before the next "\n%%\n" (all of it where there is none); false at the
 * end of the input. */
bool fuzz_part(const uint8_t **part, size_t *part_size, const uint8_t **data, size_t *size);

/* How many of the bytes are UTF-8, from the start. */
size_t fuzz_utf8(const uint8_t *data, size_t size);

/* The most memory that an input of so many bytes may take: ten times as many and 64 MB. */
size_t fuzz_memory(size_t size);

/* A failure that the sanitizers cannot see. */
void fuzz_check(bool condition, const char *what);

#endif
