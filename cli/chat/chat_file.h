/* Conversations in session files: the states that store.h keeps, with a note of what was said.
 *
 *     chat_file_save(&c, "talk.ccas", &err);             // as it is now
 *     chat_file_load(&c, "talk.ccas", &err);             // in place of what c has
 *
 *     cca_store *store;                                  // or kept while it goes on:
 *     chat_file_open(&store, &c, "talk.ccas", &err);     // loaded where it is there
 *     chat_file_append(store, &c, &err);                 // after each turn
 *     chat_file_cut(store, &c, &err);                    // after turns were taken back
 *     cca_store_close(store);
 *
 * The note is JSON, and complete at each checkpoint:
 *
 *     {"schema": "cca.chat.1", "model", "template", "system", "base": documents at the start,
 *      "messages": [{"role": "document|user|assistant", "begin", "from", "led", "name" or "text"}],
 *      "pending": [ids behind the checkpoint]}
 *
 * With the model's own template the note has its "template_hash", and the "time" that it tells.
 * A document's text is that of its tokens. */
#ifndef CCA_CLI_CHAT_FILE_H
#define CCA_CLI_CHAT_FILE_H

#include "cli/chat/conversation.h"

/* Replaces a session file, but no file of another kind (CCA_BAD_MODEL). CCA_BAD_OUTPUT. The
 * checkpoints are those of the beginning, of the last turn's start and of its end. */
cca_status chat_file_save(conversation *c, const char *path, cca_error *err);

/* CCA_BAD_MODEL where the file is missing, damaged, no conversation, or of another model, settings
 * or template; CCA_NO_FIT where it is too long. The conversation is as before after a failure. */
cca_status chat_file_load(conversation *c, const char *path, cca_error *err);

/* Opens the file to be kept up to date: loads it where it is there, else creates it. CCA_BAD_MODEL
 * also where c has documents or a system text that are not the file's. */
cca_status chat_file_open(cca_store **out, conversation *c, const char *path, cca_error *err);
cca_status chat_file_append(cca_store *store, conversation *c, cca_error *err);
cca_status chat_file_cut(cca_store *store, const conversation *c, cca_error *err);

/* The note of c at a checkpoint, to be freed (NULL without memory), and back: a conversation
 * without a session from a note and the n ids of its checkpoint, for the engine and the template of
 * like. path is for messages. After a failure out is empty. */
char *chat_note_write(const conversation *c, int64_t pos);
cca_status chat_note_read(conversation *out, const conversation *like, const char *note,
                          size_t size, const int32_t *ids, int64_t n, const char *path,
                          cca_error *err);

#endif
