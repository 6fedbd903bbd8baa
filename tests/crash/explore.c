#include "tests/crash/explore.h"

#include "base/hash.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WHY = 1024, PATH = 4096, MOST_SHOWN = 5 };

/* A name of which something was promised. */
typedef struct promise {
    const char *name;
    version now, next; /* next: while it is being kept */
    bool begun;
} promise;

typedef struct walk {
    explorer *e;
    const record_log *log;
    disk *d;
    promise *promises;
    size_t n_promises;
    version *claimed; /* of each claim in the log */
    size_t at;        /* operation */
    long epoch;       /* changes with what is promised */
} walk;

/* ---- folders ---- */

static void empty(const char *folder) {
    char path[PATH];
    DIR *dir = opendir(folder);
    if (!dir) return;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_type == DT_DIR) {
            empty(path);
            rmdir(path);
        } else {
            unlink(path);
        }
    }
    closedir(dir);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const disk_file *)a)->name, ((const disk_file *)b)->name);
}

void place(const char *folder, disk_state *s) {
    char path[PATH];
    struct stat st;
    empty(folder);
    qsort(s->files, s->n, sizeof *s->files, by_name); /* folders come before what is in them */
    for (size_t i = 0; i < s->n; i++) {
        disk_file *f = &s->files[i];
        snprintf(path, sizeof path, "%s/%s", folder, f->name);
        if (!f->data) {
            if (mkdir(path, 0700) != 0) abort();
            continue;
        }
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(f->data, 1, f->size, file) != f->size || fclose(file) != 0) abort();
        if (stat(path, &st) != 0) abort();
        f->inode = st.st_ino;
    }
}

/* ---- what is promised ---- */

static promise *promise_of(walk *w, const char *name) {
    for (size_t i = 0; i < w->n_promises; i++) {
        if (strcmp(w->promises[i].name, name) == 0) return &w->promises[i];
    }
    w->promises = realloc(w->promises, (w->n_promises + 1) * sizeof *w->promises);
    if (!w->promises) abort();
    w->promises[w->n_promises] = (promise){.name = name, .now.last = -1};
    return &w->promises[w->n_promises++];
}

static version copy_of(const version *v) {
    version out = *v;
    out.hashes = malloc((v->n + 1) * sizeof *v->hashes);
    if (!out.hashes) abort();
    if (v->n > 0) memcpy(out.hashes, v->hashes, v->n * sizeof *v->hashes);
    return out;
}

static bool read_named(version *out, const explorer *e, const char *name, char why[WHY]) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/%s", e->folder, name);
    return reader_read(out, path, why);
}

static void complain(const walk *w, const char *name, const char *why) {
    explorer *e = w->e;
    if (e->n_wrong++ >= MOST_SHOWN) return;
    const op *o = w->at < w->log->n ? &w->log->ops[w->at] : NULL;
    printf("%s: %s: %s, where the power goes behind operation %zu (%s %s)\n", e->name, name, why,
           w->at, o ? record_kind(o->kind) : "none", o ? o->a : "");
}

/* The claim that keeps what an operation begins; NULL where it fails. */
static const version *claim_of(const walk *w, size_t begin) {
    const op *ops = w->log->ops;
    for (size_t i = begin + 1; i < w->log->n; i++) {
        bool ends = ops[i].kind == OP_CLAIM || ops[i].kind == OP_FAIL;
        if (!ends || strcmp(ops[i].a, ops[begin].a) != 0) continue;
        return ops[i].kind == OP_CLAIM ? &w->claimed[i] : NULL;
    }
    return NULL;
}

static void keep(walk *w, const op *o) {
    if (o->kind != OP_BEGIN && o->kind != OP_CLAIM && o->kind != OP_FAIL) return;
    promise *p = promise_of(w, o->a);
    const version *next = o->kind == OP_BEGIN ? claim_of(w, w->at) : NULL;
    w->epoch++;
    version_free(&p->next);
    p->begun = next;
    if (next) p->next = copy_of(next);
    if (o->kind != OP_CLAIM) return;
    const version *now = &w->claimed[w->at];
    p->now.last = now->last;
    if (!now->there) return; /* removed: what was there may come back */
    version_free(&p->now);
    p->now = copy_of(now);
}

/* What each claim stands for: the folder as the program sees it then. */
static void read_claims(walk *w, const disk_state *start) {
    char why[WHY];
    disk *d = disk_new(start->files, start->n);
    for (w->at = 0; w->at < w->log->n; w->at++) {
        const op *o = &w->log->ops[w->at];
        disk_do(d, o);
        if (o->kind != OP_CLAIM) continue;
        disk_state s = disk_cut(d, NULL);
        place(w->e->folder, &s);
        if (!read_named(&w->claimed[w->at], w->e, o->a, why)) complain(w, o->a, why);
        if (w->claimed[w->at].refused) complain(w, o->a, why);
        disk_state_free(&s);
    }
    disk_free(d);
}

/* What was there before is promised, too. */
static void read_start(walk *w, const disk_state *start) {
    char why[WHY];
    for (size_t i = 0; i < start->n; i++) {
        const char *name = start->files[i].name;
        size_t n = strlen(name);
        bool temporary = n > 4 && strcmp(name + n - 4, ".tmp") == 0;
        if (!start->files[i].data || temporary) continue;
        promise *p = promise_of(w, name);
        if (!read_named(&p->now, w->e, name, why)) complain(w, name, why);
    }
}

/* ---- states ---- */

static void check_promise(walk *w, const promise *p) {
    char why[WHY];
    version v;
    int64_t least = p->begun && p->next.last < p->now.last ? p->next.last : p->now.last;
    bool right = read_named(&v, w->e, p->name, why);
    for (size_t i = 0; i < v.n && right; i++) {
        right =
            version_has(&p->now, v.hashes[i]) || (p->begun && version_has(&p->next, v.hashes[i]));
        if (!right) snprintf(why, WHY, "checkpoint %zu is none that was written", i);
    }
    if (right && v.last < least) {
        right = false;
        if (!why[0]) {
            snprintf(why, WHY, "ends at %lld, %lld was promised", (long long)v.last,
                     (long long)least);
        }
    }
    w->e->n_refused += v.refused && right;
    if (!right) complain(w, p->name, why);
    version_free(&v);
}

static bool seen(explorer *e, uint64_t hash) {
    if (2 * e->n_seen >= e->seen_capacity) {
        size_t capacity = e->seen_capacity ? 2 * e->seen_capacity : 1024, n = e->seen_capacity;
        uint64_t *old = e->seen;
        e->seen = calloc(capacity, sizeof *e->seen);
        if (!e->seen) abort();
        e->seen_capacity = capacity;
        e->n_seen = 0;
        for (size_t i = 0; i < n; i++) {
            if (old[i] != 0) (void)seen(e, old[i]);
        }
        free(old);
    }
    size_t at = hash % e->seen_capacity;
    while (e->seen[at] != 0 && e->seen[at] != hash) at = (at + 1) % e->seen_capacity;
    if (e->seen[at] == hash) return true;
    e->seen[at] = hash;
    e->n_seen++;
    return false;
}

static void check(walk *w, const bool *mask) {
    explorer *e = w->e;
    char why[WHY];
    disk_state s = disk_cut(w->d, mask);
    uint64_t hash = cca_hash_number(disk_hash(&s) + (uint64_t)w->epoch) | 1;
    e->n_states++;
    if (!seen(e, hash)) {
        place(e->folder, &s);
        for (size_t i = 0; i < w->n_promises; i++) check_promise(w, &w->promises[i]);
        if (e->go_on && e->n_distinct % e->every == 0) {
            e->n_gone_on++;
            if (!e->go_on(e, &s, why)) complain(w, "going on", why);
        }
        e->n_distinct++;
    }
    disk_state_free(&s);
}

static uint64_t draw(explorer *e) {
    return cca_hash_number(++e->seed);
}

static void check_all_sets(walk *w, bool *mask, size_t n) {
    for (uint64_t set = 0; set < UINT64_C(1) << n; set++) {
        for (size_t i = 0; i < n; i++) mask[i] = set >> i & 1;
        check(w, mask);
    }
}

/* Torn behind each of its pieces, and each of them lost alone. */
static void check_last(walk *w, bool *mask, size_t n) {
    for (size_t i = disk_last(w->d); i < n; i++) {
        for (size_t k = 0; k < n; k++) mask[k] = k <= i;
        check(w, mask);
        for (size_t k = 0; k < n; k++) mask[k] = k != i;
        check(w, mask);
        for (size_t k = 0; k < n; k++) mask[k] = k == i;
        check(w, mask);
    }
}

/* Each piece is there with a chance that is one for the set: one of 16 to 15 of 16. */
static void check_random(walk *w, bool *mask, size_t n) {
    for (int i = 0; i < w->e->n_random; i++) {
        uint64_t chance = draw(w->e) % 15 + 1;
        for (size_t k = 0; k < n; k++) mask[k] = draw(w->e) % 16 < chance;
        check(w, mask);
    }
}

static void check_sets(walk *w) {
    size_t n = disk_pending(w->d);
    bool *mask = calloc(n + 1, sizeof *mask);
    if (!mask) abort();
    if (n <= w->e->all_below) {
        check_all_sets(w, mask, n);
    } else {
        check(w, mask);
        check(w, NULL);
        check_last(w, mask, n);
        check_random(w, mask, n);
    }
    free(mask);
}

void explore(explorer *e, const disk_state *start, const record_log *log) {
    walk w = {.e = e, .log = log, .d = disk_new(start->files, start->n)};
    w.claimed = calloc(log->n + 1, sizeof *w.claimed);
    if (!w.claimed) abort();
    disk_state first = disk_cut(w.d, NULL);
    place(e->folder, &first);
    read_start(&w, start);
    read_claims(&w, start);
    disk_state_free(&first);
    for (w.at = 0; w.at < log->n; w.at++) {
        disk_do(w.d, &log->ops[w.at]);
        keep(&w, &log->ops[w.at]);
        check_sets(&w);
    }
    e->n_ops += (long)log->n;
    for (size_t i = 0; i < log->n; i++) version_free(&w.claimed[i]);
    for (size_t i = 0; i < w.n_promises; i++) {
        version_free(&w.promises[i].now);
        version_free(&w.promises[i].next);
    }
    free(w.claimed);
    free(w.promises);
    disk_free(w.d);
}

void explorer_free(explorer *e) {
    free(e->seen);
    e->seen = NULL;
}
