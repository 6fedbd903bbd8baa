#include "export/json.h"

#include "base/file_kind.h"
#include "base/mapping.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

cca_status cca_json_parse(json_t **out, const void *data, size_t size, const char *path,
                          cca_error *err) {
    json_error_t e;
    size_t lead = cca_file_lead(data, size); /* a byte order mark, which is no JSON, too */
    const char *text = (const char *)data + lead;
    size -= lead;
    errno = 0;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
    /* transformers writes 10^30 for "no limit"; such a file's integers are no whole numbers. */
    if (!*out && json_error_code(&e) == json_error_numeric_overflow) {
        *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
    }
    if (!*out) {
        /* Jansson says itself only now and then that it ran out of memory. */
        if (errno == ENOMEM || json_error_code(&e) == json_error_out_of_memory) {
            return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to read its JSON", path);
        }
        return cca_fail(err, CCA_BAD_MODEL, "%s: bad JSON, line %d: %s", path, e.line, e.text);
    }
    if (json_is_object(*out)) return CCA_OK;
    json_decref(*out);
    *out = NULL;
    return cca_fail(err, CCA_BAD_MODEL, "%s: its JSON is no object", path);
}

cca_status cca_json_load(json_t **out, const char *path, cca_error *err) {
    cca_mapping file;
    *out = NULL;
    cca_status status = cca_mapping_open(&file, path, err);
    if (status) return status;
    status = cca_json_parse(out, file.data, file.size, path, err);
    cca_mapping_close(&file);
    return status;
}

void cca_json_refuse(cca_json_reader *r, const char *format, ...) {
    char text[512];
    if (r->status) return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status = cca_fail(r->err, CCA_BAD_MODEL, "%s: %s", r->path, text);
}

const json_t *cca_json_field(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

int64_t cca_json_whole(cca_json_reader *r, const json_t *object, const char *key,
                       int64_t fallback) {
    const json_t *value = cca_json_field(object, key);
    if (!value && fallback != 0) return fallback;
    if (!value) {
        cca_json_refuse(r, "%s is missing", key);
    } else if (!json_is_integer(value)) {
        cca_json_refuse(r, "%s is no whole number", key);
    } else if (json_integer_value(value) < 1 || json_integer_value(value) > INT32_MAX) {
        cca_json_refuse(r, "%s is out of range: %lld", key, (long long)json_integer_value(value));
    }
    return json_integer_value(value);
}

double cca_json_real(cca_json_reader *r, const json_t *object, const char *key, double fallback) {
    const json_t *value = cca_json_field(object, key);
    if (!value && fallback != 0) return fallback;
    double real = json_number_value(value);
    if (!value) {
        cca_json_refuse(r, "%s is missing", key);
    } else if (!json_is_number(value)) {
        cca_json_refuse(r, "%s is no number", key);
    } else if (!(real > 0) || !isfinite(real)) {
        cca_json_refuse(r, "%s is out of range: %g", key, real);
    }
    return real;
}

bool cca_json_bool(cca_json_reader *r, const json_t *object, const char *key, bool fallback) {
    const json_t *value = cca_json_field(object, key);
    if (!value) return fallback;
    if (!json_is_boolean(value)) cca_json_refuse(r, "%s is neither true nor false", key);
    return json_is_true(value);
}

const char *cca_json_string(cca_json_reader *r, const json_t *object, const char *key,
                            const char *fallback) {
    const json_t *value = cca_json_field(object, key);
    if (!value) return fallback;
    if (json_is_string(value)) return json_string_value(value);
    cca_json_refuse(r, "%s is no string", key);
    return fallback;
}

const json_t *cca_json_object(cca_json_reader *r, const json_t *object, const char *key) {
    const json_t *value = cca_json_field(object, key);
    if (value && !json_is_object(value)) cca_json_refuse(r, "%s is no object", key);
    return json_is_object(value) ? value : NULL;
}
