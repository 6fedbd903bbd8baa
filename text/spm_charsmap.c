/* The compiled rules of normalisation in a SentencePiece model, walked before the library walks
 * them: it trusts each offset.
 *
 * u32 size of the trie in bytes; the trie; replacements, each ended by NUL. The trie is a double
 * array of u32 units (darts-clone). From a node at base b, byte c leads to the unit at b ^ c, if
 * that has c for its label (bits 0-7, with bit 31 clear); the next base is the unit's place XOR
 * its offset (bits 10-30, times 256 if bit 9 is set). With bit 8 set a rule ends there, and the
 * unit at the next base holds (bits 0-30) the place of its replacement. Branches may join. */
#include "text/spm.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_TRIE_UNITS = 1 << 22, /* real ones have some 60,000 */
    MAX_NESTED_RULES = 32,    /* the library collects rules that start alike in an array */
};

typedef struct trie {
    const uint8_t *units;
    uint32_t n_units;
    size_t texts_size;
    uint8_t *state; /* [n_units] of the node with that base */
    uint8_t *rules; /* [n_units] most rules that end on one way from there on */
    struct step *path;
    bool inside[256]; /* bytes that stand in a rule behind another one */
} trie;

/* A node under way: its base, and the byte to try next. */
typedef struct step {
    uint32_t base;
    uint32_t byte;
    bool rule; /* a rule ends where this node was entered */
} step;

enum { NEW, OPEN, DONE };

static uint32_t unit_at(const trie *t, uint32_t i) {
    const uint8_t *p = t->units + 4 * (size_t)i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t next_base(uint32_t place, uint32_t unit) {
    return place ^ ((unit >> 10) << ((unit & 0x200) >> 6));
}

static bool has_rule(uint32_t unit) {
    return (unit >> 8) & 1;
}

/* The unit that byte leads to from base. */
static bool follow(const trie *t, uint32_t base, uint32_t byte, uint32_t *unit) {
    *unit = unit_at(t, base ^ byte);
    return (*unit & 0x800000ffu) == byte;
}

/* The library reads base ^ c for any byte c before it knows whether that leads anywhere. */
static bool base_is_sound(const trie *t, uint32_t base, bool rule) {
    if ((base | 0xff) >= t->n_units) return false;
    return !rule || (unit_at(t, base) & 0x7fffffffu) < t->texts_size;
}

/* Depth first over all ways through the trie; NULL, or what is wrong. */
static const char *walk(trie *t) {
    uint32_t root = next_base(0, unit_at(t, 0));
    if (!base_is_sound(t, root, false)) return "root out of range";
    size_t depth = 0;
    t->path[depth++] = (step){root, 0, false};
    t->state[root] = OPEN;
    while (depth > 0) {
        step *at = &t->path[depth - 1];
        if (at->byte == 256) { /* done: tell the node before */
            t->state[at->base] = DONE;
            if (--depth == 0) break;
            uint32_t before = at[-1].base, rules = t->rules[at->base] + (at->rule ? 1u : 0u);
            if (rules > MAX_NESTED_RULES) return "too many rules inside each other";
            if (rules > t->rules[before]) t->rules[before] = (uint8_t)rules;
            continue;
        }
        uint32_t unit, byte = at->byte++;
        if (!follow(t, at->base, byte, &unit)) continue;
        if (at->base != root) t->inside[byte] = true;
        uint32_t base = next_base(at->base ^ byte, unit);
        bool rule = has_rule(unit);
        if (!base_is_sound(t, base, rule)) return "offset out of range";
        if (t->state[base] == OPEN) return "a circle";
        /* A node that is done is entered once more, with nothing left to try. */
        t->path[depth++] = (step){base, t->state[base] == DONE ? 256 : 0, rule};
        if (t->state[base] == NEW) t->state[base] = OPEN;
    }
    return NULL;
}

/* Letters and digits of ASCII, and what may begin a larger character. */
static bool is_word_byte(int c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c >= 0xc2 && c <= 0xf4);
}

static void find_plain(cca_spm_plain *plain, const trie *t) {
    uint32_t unit, root = next_base(0, unit_at(t, 0));
    for (uint32_t c = 0; c < 256; c++) {
        bool starts = follow(t, root, c, &unit) && (c >= 0x80 || has_rule(unit));
        if (starts || t->inside[c]) plain->is[c] = false;
    }
    if (!follow(t, root, ' ', &unit)) return;
    uint32_t base = next_base(root ^ ' ', unit);
    for (int c = 0; c < 256; c++) {
        if (is_word_byte(c) && follow(t, base, (uint32_t)c, &unit)) plain->is[' '] = false;
    }
}

static cca_status check_trie(cca_spm_plain *plain, trie *t, const char *name, cca_error *err) {
    t->state = calloc(t->n_units, sizeof *t->state);
    t->rules = calloc(t->n_units, sizeof *t->rules);
    t->path = malloc(((size_t)t->n_units + 1) * sizeof *t->path);
    cca_status status = CCA_OK;
    if (!t->state || !t->rules || !t->path) {
        status =
            cca_fail(err, CCA_NO_MEMORY, "%s: no memory to check rules of normalisation", name);
    } else {
        const char *wrong = walk(t);
        if (wrong) {
            status =
                cca_fail(err, CCA_BAD_MODEL, "%s: damaged rules of normalisation: %s", name, wrong);
        } else {
            find_plain(plain, t);
        }
    }
    free(t->state);
    free(t->rules);
    free(t->path);
    return status;
}

cca_status cca_spm_charsmap_check(cca_spm_plain *plain, cca_spm_text charsmap, const char *name,
                                  cca_error *err) {
    for (int c = 0; c < 256; c++) plain->is[c] = c == ' ' || is_word_byte(c);
    if (charsmap.size == 0) return CCA_OK;
    trie t = {.units = (const uint8_t *)charsmap.bytes, .n_units = 1};
    uint32_t bytes = charsmap.size > 4 ? unit_at(&t, 0) : 0;
    t.units += 4;
    t.n_units = bytes / 4;
    if (bytes % 4 != 0 || t.n_units < 256 || t.n_units > MAX_TRIE_UNITS ||
        bytes >= charsmap.size - 4 || charsmap.bytes[charsmap.size - 1] != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: damaged rules of normalisation: %u of %zu bytes",
                        name, bytes, charsmap.size);
    }
    t.texts_size = charsmap.size - 4 - bytes;
    return check_trie(plain, &t, name, err);
}
