/* The notes of a session file: JSON about what its states were made from, the last one counts.
 *
 *     text_buffer note = {0};
 *     stored_note_write(store, pos, "{…}", &err);        // before the checkpoint at pos
 *     stored_note_read(&note, store, n_segments, &err);  // the last of the first n_segments
 *
 * A prompt's: {"schema": "cca.prompt.1", "model": path, "sources": [names]}; a conversation's is
 * chat_file.h's, and names the model, too. */
#ifndef CCA_CLI_STORED_NOTE_H
#define CCA_CLI_STORED_NOTE_H

#include "cli/text_buffer.h"
#include "store.h"

#include <jansson.h>

#define STORED_NOTE_SCHEMA "cca.prompt.1"

/* Not yet committed. */
cca_status stored_note_write(cca_store *store, int64_t pos, const char *note, cca_error *err);

/* Appends to out; nothing where there is none. CCA_BAD_MODEL for a damaged one. */
cca_status stored_note_read(text_buffer *out, cca_store *store, size_t n_segments, cca_error *err);

/* The file's last note: the model's path, and the names of what was read; empty where that is not
 * known. *note is what they are borrowed from, NULL or to be given back; damage is no error here.
 */
typedef struct stored_about {
    json_t *note;
    const char *model;
    json_t *names; /* array, to be given back; NULL without memory */
} stored_about;
void stored_about_read(stored_about *out, cca_store *store);
void stored_about_free(stored_about *about);

#endif
