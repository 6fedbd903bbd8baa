#include "tests/crash/disk.h"

#include "base/base.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, FOLDER = -1 };

/* The bytes of a file, also of one that has no name (any more); behind its size they are what was
 * written there while the new size is not there yet. */
typedef struct content {
    uint64_t inode;
    uint8_t *data;
    size_t size, capacity;
} content;

typedef struct entry {
    const char *name;
    int of; /* index of the content, or FOLDER */
} entry;

typedef struct image {
    content *contents;
    size_t n_contents;
    entry *entries;
    size_t n_entries;
} image;

typedef struct piece {
    op o;
    int of; /* content; of a rename, too */
} piece;

struct disk {
    image sure;
    piece *pending;
    size_t n_pending, last;
    struct owner {
        uint64_t inode;
        int of;
    } * owners;
    size_t n_owners;
};

static void *grow(void *old, size_t n, size_t size) {
    if (n >= SIZE_MAX / size) abort();
    void *grown = old ? realloc(old, (n + 1) * size) : calloc(n + 1, size);
    if (!grown) abort();
    return grown;
}

/* ---- images ---- */

static void reserve(content *c, size_t size) {
    if (c->data && size <= c->capacity) return;
    size_t capacity = size + size / 2 + SECTOR;
    c->data = realloc(c->data, capacity);
    if (!c->data) abort();
    memset(c->data + c->capacity, 0, capacity - c->capacity);
    c->capacity = capacity;
}

static entry *find(const image *m, const char *name) {
    for (size_t i = 0; i < m->n_entries; i++) {
        if (strcmp(m->entries[i].name, name) == 0) return &m->entries[i];
    }
    return NULL;
}

static void remove_entry(image *m, const char *name) {
    entry *e = find(m, name);
    if (e) *e = m->entries[--m->n_entries];
}

static void set_entry(image *m, const char *name, int of) {
    remove_entry(m, name);
    m->entries = grow(m->entries, m->n_entries, sizeof *m->entries);
    m->entries[m->n_entries++] = (entry){name, of};
}

static int add_content(image *m, uint64_t inode, const void *data, size_t size) {
    content c = {.inode = inode, .size = size};
    if (size == SIZE_MAX) abort();
    reserve(&c, size + 1);
    if (size > 0) memcpy(c.data, data, size);
    m->contents = grow(m->contents, m->n_contents, sizeof *m->contents);
    m->contents[m->n_contents] = c;
    return (int)m->n_contents++;
}

static void set_size(content *c, size_t size) {
    reserve(c, size);
    memset(c->data + size, 0, c->capacity - size);
    c->size = size;
}

static void apply_bytes(content *c, const op *o) {
    if (o->kind == OP_SIZE) {
        set_size(c, o->at);
        return;
    }
    reserve(c, o->at + o->n);
    if (o->kind == OP_WRITE) memcpy(c->data + o->at, o->data, o->n);
    if (o->kind == OP_PUNCH) memset(c->data + o->at, 0, o->n);
    if (o->kind == OP_EXTEND && c->size < o->at) c->size = o->at;
}

static void apply_name(image *m, const op *o, int of) {
    const entry *from = find(m, o->a);
    if (o->kind == OP_CREATE || o->kind == OP_MKDIR) set_entry(m, o->a, of);
    if (o->kind == OP_UNLINK) remove_entry(m, o->a);
    if (o->kind != OP_RENAME) return;
    if (from && from->of == of) remove_entry(m, o->a);
    set_entry(m, o->b, of);
}

static bool of_folder(op_kind kind) {
    return kind == OP_CREATE || kind == OP_RENAME || kind == OP_UNLINK || kind == OP_MKDIR;
}

static void apply(image *m, const piece *p) {
    if (of_folder(p->o.kind)) {
        apply_name(m, &p->o, p->of);
    } else if (p->of >= 0) {
        apply_bytes(&m->contents[p->of], &p->o);
    }
}

static image copy_of(const image *m) {
    image out = {.n_contents = m->n_contents, .n_entries = m->n_entries};
    out.contents = grow(NULL, m->n_contents, sizeof *out.contents);
    out.entries = grow(NULL, m->n_entries, sizeof *out.entries);
    if (m->n_entries > 0) memcpy(out.entries, m->entries, m->n_entries * sizeof *out.entries);
    for (size_t i = 0; i < m->n_contents; i++) {
        out.contents[i] = m->contents[i];
        out.contents[i].data = malloc(m->contents[i].capacity);
        if (!out.contents[i].data) abort();
        memcpy(out.contents[i].data, m->contents[i].data, m->contents[i].capacity);
    }
    return out;
}

static void free_image(image *m) {
    for (size_t i = 0; i < m->n_contents; i++) free(m->contents[i].data);
    free(m->contents);
    free(m->entries);
}

/* ---- operations ---- */

static int owner_of(const disk *d, uint64_t inode) {
    for (size_t i = d->n_owners; i-- > 0;) {
        if (d->owners[i].inode == inode) return d->owners[i].of;
    }
    return FOLDER;
}

static void own(disk *d, uint64_t inode, int of) {
    d->owners = grow(d->owners, d->n_owners, sizeof *d->owners);
    d->owners[d->n_owners++] = (struct owner){inode, of};
}

disk *disk_new(const disk_file *files, size_t n) {
    disk *d = calloc(1, sizeof *d);
    if (!d) abort();
    d->sure.entries = grow(NULL, 0, sizeof *d->sure.entries);
    for (size_t i = 0; i < n; i++) {
        int of = FOLDER;
        if (files[i].data) {
            of = add_content(&d->sure, files[i].inode, files[i].data, files[i].size);
            own(d, files[i].inode, of);
        }
        set_entry(&d->sure, files[i].name, of);
    }
    return d;
}

static void push(disk *d, op o, int of) {
    if ((d->n_pending & (d->n_pending - 1)) == 0) {
        size_t capacity = d->n_pending ? 2 * d->n_pending : 1;
        d->pending = realloc(d->pending, capacity * sizeof *d->pending);
        if (!d->pending) abort();
    }
    d->pending[d->n_pending++] = (piece){o, of};
}

/* A piece a sector, and the length that the file has behind them. */
static void push_sectors(disk *d, const op *o, int of) {
    for (uint64_t at = o->at, end = o->at + o->n, next; at < end; at = next) {
        next = (at / SECTOR + 1) * SECTOR < end ? (at / SECTOR + 1) * SECTOR : end;
        push(d, (op){.kind = o->kind, .at = at, .n = next - at, .data = o->data + (at - o->at)},
             of);
    }
    if (o->kind == OP_WRITE) push(d, (op){.kind = OP_EXTEND, .at = o->at + o->n}, of);
}

static bool in_folder(const char *name, const char *folder) {
    const char *slash = strrchr(name, '/');
    size_t n = slash ? (size_t)(slash - name) : 0;
    return strlen(folder) == n && strncmp(name, folder, n) == 0;
}

/* What a sync covers is there from now on. */
static void settle(disk *d, int of, const char *folder) {
    size_t left = 0;
    for (size_t i = 0; i < d->n_pending; i++) {
        const piece *p = &d->pending[i];
        bool named = of_folder(p->o.kind);
        bool covered = folder ? named && in_folder(p->o.a, folder) : !named && p->of == of;
        if (covered) apply(&d->sure, p);
        if (!covered) d->pending[left++] = *p;
    }
    d->n_pending = left;
}

/* What a name stands for when all pieces are there. */
static int content_now(const disk *d, const char *name) {
    const entry *e = find(&d->sure, name);
    int of = e ? e->of : FOLDER;
    for (size_t i = 0; i < d->n_pending; i++) {
        const op *o = &d->pending[i].o;
        if (o->kind == OP_CREATE && strcmp(o->a, name) == 0) of = d->pending[i].of;
        if (o->kind == OP_RENAME && strcmp(o->b, name) == 0) of = d->pending[i].of;
    }
    return of;
}

void disk_do(disk *d, const op *o) {
    int of = owner_of(d, o->inode);
    d->last = d->n_pending;
    switch (o->kind) {
    case OP_CREATE:
        of = add_content(&d->sure, o->inode, NULL, 0);
        own(d, o->inode, of);
        push(d, *o, of);
        break;
    case OP_FORGET: own(d, o->inode, FOLDER); break;
    case OP_WRITE:
    case OP_PUNCH:
        if (of >= 0) push_sectors(d, o, of);
        break;
    case OP_SIZE:
    case OP_EXTEND:
        if (of >= 0) push(d, *o, of);
        break;
    case OP_RENAME: push(d, *o, content_now(d, o->a)); break;
    case OP_UNLINK:
    case OP_MKDIR: push(d, *o, FOLDER); break;
    case OP_SYNC:
        if (of >= 0) settle(d, of, NULL);
        d->last = d->n_pending;
        break;
    case OP_SYNC_FOLDER:
        settle(d, FOLDER, o->a);
        d->last = d->n_pending;
        break;
    default: break;
    }
}

size_t disk_pending(const disk *d) {
    return d->n_pending;
}

size_t disk_last(const disk *d) {
    return d->last;
}

/* ---- states ---- */

/* Whether all folders above a name are there. */
static bool reachable(const image *m, const char *name) {
    char path[4096];
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t n = (size_t)(slash - name);
        memcpy(path, name, n);
        path[n] = '\0';
        if (!find(m, path)) return false;
    }
    return true;
}

disk_state disk_cut(const disk *d, const bool *mask) {
    image m = copy_of(&d->sure);
    disk_state s = {0};
    for (size_t i = 0; i < d->n_pending; i++) {
        if (!mask || mask[i]) apply(&m, &d->pending[i]);
    }
    s.files = grow(NULL, m.n_entries, sizeof *s.files);
    for (size_t i = 0; i < m.n_entries; i++) {
        const entry *e = &m.entries[i];
        if (!reachable(&m, e->name)) continue;
        disk_file f = {.name = e->name};
        if (e->of >= 0) {
            content *c = &m.contents[e->of];
            f.inode = c->inode;
            f.size = c->size;
            f.data = malloc(c->size + 1); /* two names may stand for it */
            if (!f.data) abort();
            if (c->data) memcpy(f.data, c->data, c->size);
        }
        s.files[s.n++] = f;
    }
    free_image(&m);
    return s;
}

/* The order of files is no part of it. */
uint64_t disk_hash(const disk_state *s) {
    uint64_t all = 0;
    for (size_t i = 0; i < s->n; i++) {
        uint64_t hash = cca_hash(s->files[i].name, strlen(s->files[i].name) + 1);
        hash = cca_hash_more(hash, &s->files[i].size, sizeof s->files[i].size);
        if (s->files[i].data) hash = cca_hash_more(hash, s->files[i].data, s->files[i].size);
        all += cca_hash_number(hash);
    }
    return all;
}

const disk_file *disk_find(const disk_state *s, const char *name) {
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->files[i].name, name) == 0) return &s->files[i];
    }
    return NULL;
}

void disk_state_free(disk_state *s) {
    for (size_t i = 0; i < s->n; i++) free(s->files[i].data);
    free(s->files);
    *s = (disk_state){0};
}

void disk_free(disk *d) {
    free_image(&d->sure);
    free(d->pending);
    free(d->owners);
    free(d);
}
