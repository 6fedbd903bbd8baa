#include "cli/stored_note.h"

#include "cli/output.h"

#include <string.h>

cca_status stored_note_write(cca_store *store, int64_t pos, const char *note, cca_error *err) {
    size_t size = strlen(note);
    cca_status status = cca_store_begin(store, CCA_STORE_NOTE, pos, 0, size, err);
    return status ? status : cca_store_write(store, note, size, err);
}

cca_status stored_note_read(text_buffer *out, cca_store *store, size_t n_segments, cca_error *err) {
    size_t i = n_segments;
    while (i > 0 && cca_store_segment_at(store, i - 1).kind != CCA_STORE_NOTE) i--;
    if (i == 0) return CCA_OK;
    uint64_t bytes = cca_store_segment_at(store, i - 1).bytes;
    if (bytes > SIZE_MAX / 2 || !text_reserve(out, (size_t)bytes + 1)) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its note", cca_store_path(store));
    }
    cca_status status = cca_store_read_begin(store, i - 1, err);
    if (!status) status = cca_store_read(store, out->bytes + out->size, (size_t)bytes, err);
    if (!status) out->size += (size_t)bytes;
    return status;
}

void stored_about_read(stored_about *out, cca_store *store) {
    text_buffer text = {0};
    size_t i;
    json_t *item;
    cca_status status = stored_note_read(&text, store, cca_store_n_segments(store), NULL);
    *out = (stored_about){.names = json_array()};
    if (!status && text.size > 0) {
        out->note = json_loadb(text.bytes, text.size, JSON_ALLOW_NUL, NULL);
    }
    text_free(&text);
    out->model = json_string_value(json_object_get(out->note, "model"));
    json_array_foreach(json_object_get(out->note, "sources"), i, item) {
        if (json_is_string(item)) output_add(&out->names, json_incref(item));
    }
    json_array_foreach(json_object_get(out->note, "messages"), i, item) {
        json_t *name = json_object_get(item, "name");
        if (json_is_string(name)) output_add(&out->names, json_incref(name));
    }
}

void stored_about_free(stored_about *about) {
    json_decref(about->note);
    json_decref(about->names);
    *about = (stored_about){0};
}
