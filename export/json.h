/* Typed reading of JSON objects, with messages that name the file and the field.
 *
 *     json_t *config;
 *     cca_json_load(&config, "model/config.json", &err);
 *     cca_json_reader r = {.path = "model/config.json", .err = &err};
 *     int64_t dim = cca_json_whole(&r, config, "hidden_size", 0);
 *     if (r.status) return r.status;
 *     json_decref(config);
 *
 * A field that is null counts as absent. The first failure of a reader sticks. */
#ifndef CCA_EXPORT_JSON_H
#define CCA_EXPORT_JSON_H

#include "base/base.h"

#include <jansson.h>

typedef struct cca_json_reader {
    const char *path;
    cca_error *err;
    cca_status status;
} cca_json_reader;

/* From a file, or from size bytes at data; the text must be an object without duplicate
 * fields. Release with json_decref. */
cca_status cca_json_load(json_t **out, const char *path, cca_error *err);
cca_status cca_json_parse(json_t **out, const void *data, size_t size, const char *path,
                          cca_error *err);

/* Fails with "PATH: ..." unless the reader has failed before. */
void cca_json_refuse(cca_json_reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The field's value; NULL where it is absent or null. */
const json_t *cca_json_field(const json_t *object, const char *key);

/* A whole number in 1 … INT32_MAX; a fallback other than 0 makes the field optional. */
int64_t cca_json_whole(cca_json_reader *r, const json_t *object, const char *key, int64_t fallback);
/* A finite number above 0; as above. Integers are numbers, too. */
double cca_json_real(cca_json_reader *r, const json_t *object, const char *key, double fallback);
bool cca_json_bool(cca_json_reader *r, const json_t *object, const char *key, bool fallback);
/* Borrowed from object; fallback, which may be NULL, also for what is no string. */
const char *cca_json_string(cca_json_reader *r, const json_t *object, const char *key,
                            const char *fallback);
/* An object, or NULL where it is absent. */
const json_t *cca_json_object(cca_json_reader *r, const json_t *object, const char *key);

#endif
