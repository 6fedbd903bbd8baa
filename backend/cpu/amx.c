/* AVX-512 with products and attention of many rows by AMX: tiles of 16 rows of 64 bytes, whose
 * product instruction adds 16 x 16 sums of 32 bf16 products. Weights of each type but f32 and f16
 * are rounded to bf16 in panels, and so is x: 8 bits would be twice as fast by themselves, but a
 * scale for each 32 of them allows half a tile at a time and costs more instructions for the sums
 * than are saved. Few rows are AVX-512's.
 *
 *                        weights of 32 rows, packed: two tiles for each 32 columns
 *     pair of columns   +----+----+
 *       0 … 15          | B0 | B1 |    [16 pairs][16 rows] words of two bf16
 *                       +----+----+
 *     x: 32 rows  +----++----+----+
 *     32 columns  | A0 || C0 | C1 |    f32, in tile registers until the columns end
 *                 +----++----+----+
 *                 | A1 || C2 | C3 |
 *                 +----++----+----+  */
#include "backend/cpu/amx.h"

#include "backend/cpu/avx512.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    TILE_ROWS = 16,
    TILE_BYTES = 64,    /* of a row */
    TILE_VALUES = 32,   /* bf16 in a row, or columns of x and weights in a step */
    STEP = 2 * 16 * 16, /* words of a panel for each step */
};

/* The instruction's operand: rows and bytes of each tile register, for C0 … C3, A0, A1, B0, B1. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_config;

/* A product of `first` and, below them, `second` rows; what a register has no rows for may not be
 * used. */
static void tiles_for(int64_t first, int64_t second) {
    const uint8_t a = (uint8_t)first, b = (uint8_t)(second > 0 ? second : 1);
    const tile_config config = {
        .palette = 1,
        .bytes = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES,
                  TILE_BYTES, TILE_BYTES},
        .rows = {a, a, b, b, a, b, TILE_ROWS, TILE_ROWS},
    };
    /* The compiler takes the instruction for one that reads eight bytes of it. */
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* ---- products ------------------------------------------------------------------------ */

static int64_t steps_of(int64_t n) {
    return (n + TILE_VALUES - 1) / TILE_VALUES;
}

/* Rows of bf16, with 0 behind the last up to a whole step. */
static size_t tile_x_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)steps_of(n) * TILE_BYTES;
}

static void tile_x_convert(void *out, cca_dtype type, const float *x, int64_t n) {
    uint16_t *to = out;
    (void)type;
    for (int64_t i = 0; i < n; i += TILE_VALUES, to += TILE_VALUES) {
        const uint32_t mask = first_of(n - i);
        const __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x + i);
        const __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> WIDTH), x + i + WIDTH);
        _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

static size_t tile_panel_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)steps_of(n) * STEP * sizeof(float);
}

/* 16 rows of 32 values each as a tile of pairs. */
INLINE void put_tile(float *panel, vec *rows) {
    transpose(rows);
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++) store(panel + (int64_t)i * WIDTH, rows[i]);
}

INLINE const char *row_at(const char *w, size_t w_stride, int64_t n_w, int64_t row) {
    return w + (size_t)cca_min(row, n_w - 1) * w_stride; /* beyond the last: any numbers will do */
}

static void tile_pack_bf16(float *panel, cca_dtype type, const char *w, size_t w_stride,
                           int64_t n_w, int64_t n) {
    (void)type;
    for (int64_t k = 0; k < n; k += TILE_VALUES, panel += STEP) {
        const __mmask32 mask = first_of(n - k);
        for (int64_t r = 0; r < n_w; r += WIDTH) {
            vec rows[WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++) {
                const char *from = row_at(w, w_stride, n_w, r + i) + (size_t)k * sizeof(uint16_t);
                rows[i] = (vec)_mm512_maskz_loadu_epi16(mask, from);
            }
            put_tile(panel + r * WIDTH, rows);
        }
    }
}

INLINE vec as_bf16(__m512 low, __m512 high) {
    return (vec)_mm512_cvtne2ps_pbh(high, low);
}

/* A block of 32. */
INLINE vec block_as_bf16(cca_dtype type, const char *w, int64_t block) {
    __m128i low, high;
    uint16_t scale;
    if (type == CCA_Q8_0) {
        const cca_q8_0 *in = (const cca_q8_0 *)w + block;
        low = _mm_loadu_si128((const __m128i *)in->q);
        high = _mm_loadu_si128((const __m128i *)(in->q + 16));
        scale = in->scale;
    } else {
        const cca_q4_0 *in = (const cca_q4_0 *)w + block;
        const __m128i both = _mm_loadu_si128((const __m128i *)in->q), four = _mm_set1_epi8(15);
        low = _mm_sub_epi8(_mm_and_si128(both, four), _mm_set1_epi8(8));
        high = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(both, 4), four), _mm_set1_epi8(8));
        scale = in->scale;
    }
    return as_bf16((__m512)times_half(scale, _mm512_cvtepi8_epi32(low)),
                   (__m512)times_half(scale, _mm512_cvtepi8_epi32(high)));
}

INLINE void tile_pack_blocks(float *panel, cca_dtype type, const char *w, size_t w_stride,
                             int64_t n_w, int64_t n) {
    for (int64_t k = 0; k < n / TILE_VALUES; k++, panel += STEP) {
        for (int64_t r = 0; r < n_w; r += WIDTH) {
            vec rows[WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++) {
                rows[i] = block_as_bf16(type, row_at(w, w_stride, n_w, r + i), k);
            }
            put_tile(panel + r * WIDTH, rows);
        }
    }
}

/* 256 values of a row. */
INLINE void large_as_bf16(vec *out, const large_apart *w) {
    float scale[SCALES], min[SCALES];
    _mm512_storeu_ps(scale, w->scale);
    _mm512_storeu_ps(min, w->min);
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        __m512 values[4];
        const __m128i bytes[4] = {
            _mm512_castsi512_si128(w->u[i]), _mm512_extracti32x4_epi32(w->u[i], 1),
            _mm512_extracti32x4_epi32(w->u[i], 2), _mm512_extracti32x4_epi32(w->u[i], 3)};
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++) {
            values[s] =
                _mm512_fmsub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes[s])),
                                _mm512_set1_ps(scale[4 * i + s]), _mm512_set1_ps(min[4 * i + s]));
        }
        out[2 * i] = as_bf16(values[0], values[1]);
        out[2 * i + 1] = as_bf16(values[2], values[3]);
    }
}

INLINE void tile_pack_large(float *panel, cca_dtype type, const char *w, size_t w_stride,
                            int64_t n_w, int64_t n) {
    for (int64_t k = 0; k < n; k += LARGE, w += large_bytes(type)) {
        const int64_t n_steps = cca_min(LARGE, n - k) / TILE_VALUES;
        for (int64_t r = 0; r < n_w; r += WIDTH) {
            vec wide[WIDTH][LARGE / TILE_VALUES];
            for (int i = 0; i < WIDTH; i++) {
                large_apart apart;
                large_take(&apart, type, row_at(w, w_stride, n_w, r + i), n - k);
                large_as_bf16(wide[i], &apart);
            }
            for (int64_t s = 0; s < n_steps; s++) {
                vec rows[WIDTH];
#pragma GCC unroll 16
                for (int i = 0; i < WIDTH; i++) rows[i] = wide[i][s];
                put_tile(panel + (k / TILE_VALUES + s) * STEP + r * WIDTH, rows);
            }
        }
    }
}

/* Sums of up to 32 rows of x with a panel, in C0 … C3; begun with what they hold. `both`: constants
 * after inlining. */
INLINE void add_steps(const char *x, size_t x_stride, const float *panel, int64_t n_steps,
                      const bool both_rows, const bool both_columns) {
    for (int64_t s = 0; s < n_steps; s++, x += TILE_BYTES, panel += STEP) {
        _tile_loadd(4, x, x_stride);
        _tile_loadd(6, panel, TILE_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if (both_rows) {
            _tile_loadd(5, x + TILE_ROWS * x_stride, x_stride);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (both_columns) {
            _tile_loadd(7, panel + STEP / 2, TILE_BYTES);
            _tile_dpbf16ps(1, 4, 7);
            if (both_rows) _tile_dpbf16ps(3, 5, 7);
        }
    }
}

INLINE void zero_tiles(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* Rows of x and PAIR rows of weights: sums go where they belong. */
INLINE void tile_block(float *out, size_t ld, const char *x, size_t x_stride, const float *panel,
                       int64_t n_steps, const bool both_rows, bool add) {
    float *below = (float *)((char *)out + TILE_ROWS * ld);
    if (add) {
        _tile_loadd(0, out, ld);
        _tile_loadd(1, out + WIDTH, ld);
        if (both_rows) _tile_loadd(2, below, ld);
        if (both_rows) _tile_loadd(3, below + WIDTH, ld);
    } else {
        zero_tiles();
    }
    add_steps(x, x_stride, panel, n_steps, both_rows, true);
    _tile_stored(0, out, ld);
    _tile_stored(1, out + WIDTH, ld);
    if (both_rows) _tile_stored(2, below, ld);
    if (both_rows) _tile_stored(3, below + WIDTH, ld);
}

/* Fewer rows of weights: sums are copied. */
static void tile_edge(float *out, int64_t ld_out, const char *x, size_t x_stride, int64_t n_x,
                      const float *panel, int64_t n_w, int64_t n_steps, bool add) {
    float sums[PAIR][PAIR];
    if (n_x > TILE_ROWS) {
        tile_block(sums[0], sizeof *sums, x, x_stride, panel, n_steps, true, false);
    } else {
        tile_block(sums[0], sizeof *sums, x, x_stride, panel, n_steps, false, false);
    }
    for (int64_t i = 0; i < n_x; i++) {
        put_columns(out + i * ld_out, _mm512_loadu_ps(sums[i]), _mm512_loadu_ps(sums[i] + WIDTH),
                    n_w, add);
    }
}

static void tile_multiply(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                          cca_dtype type, const void *panel, int64_t n_w, int64_t n, bool add) {
    const size_t ld = (size_t)ld_out * sizeof *out;
    const int64_t n_steps = steps_of(n);
    (void)type;
    for (int64_t i = 0, some, before = 0; i < n_x; i += some, before = some) {
        const char *rows = (const char *)x + (size_t)i * x_stride;
        float *to = out + i * ld_out;
        some = cca_min(2 * TILE_ROWS, n_x - i);
        if (some != before) {
            tiles_for(cca_min(TILE_ROWS, some), cca_max(some - TILE_ROWS, 0));
        }
        if (n_w < PAIR) {
            tile_edge(to, ld_out, rows, x_stride, some, panel, n_w, n_steps, add);
        } else if (some > TILE_ROWS) {
            tile_block(to, ld, rows, x_stride, panel, n_steps, true, add);
        } else {
            tile_block(to, ld, rows, x_stride, panel, n_steps, false, add);
        }
    }
    _tile_release();
}

/* ---- by type ------------------------------------------------------------------------- */

#define TILES_OF_TYPE(name, type, packing)                                                         \
    static void name##_tile_pack(void *panel, cca_dtype own, const void *w, size_t w_stride,       \
                                 int64_t n_w, int64_t n) {                                         \
        (void)own;                                                                                 \
        packing(panel, type, w, w_stride, n_w, n);                                                 \
    }                                                                                              \
                                                                                                   \
    static const cca_products name##_tiles = {                                                     \
        .x_bytes = tile_x_bytes,                                                                   \
        .x_convert = tile_x_convert,                                                               \
        .panel_bytes = tile_panel_bytes,                                                           \
        .pack = name##_tile_pack,                                                                  \
        .multiply = tile_multiply,                                                                 \
        .dot = (type) == CCA_BF16 ? bf16_dot : NULL,                                               \
        .peak = CCA_PEAK_BF16,                                                                     \
        .rounds = (type) != CCA_BF16,                                                              \
    };

TILES_OF_TYPE(bf16, CCA_BF16, tile_pack_bf16)
TILES_OF_TYPE(q8_0, CCA_Q8_0, tile_pack_blocks)
TILES_OF_TYPE(q4_0, CCA_Q4_0, tile_pack_blocks)
TILES_OF_TYPE(q4_1, CCA_Q4_1, tile_pack_large)
TILES_OF_TYPE(q5_0, CCA_Q5_0, tile_pack_large)
TILES_OF_TYPE(q5_1, CCA_Q5_1, tile_pack_large)
TILES_OF_TYPE(iq4_nl, CCA_IQ4_NL, tile_pack_large)
TILES_OF_TYPE(q2_k, CCA_Q2_K, tile_pack_large)
TILES_OF_TYPE(q3_k, CCA_Q3_K, tile_pack_large)
TILES_OF_TYPE(q4_k, CCA_Q4_K, tile_pack_large)
TILES_OF_TYPE(q5_k, CCA_Q5_K, tile_pack_large)
TILES_OF_TYPE(q6_k, CCA_Q6_K, tile_pack_large)
TILES_OF_TYPE(iq4_xs, CCA_IQ4_XS, tile_pack_large)

/* A line for each type with products by tiles. */
static const cca_products *tile_products(cca_dtype type) {
    switch (type) {
    case CCA_BF16: return &bf16_tiles;
    case CCA_Q8_0: return &q8_0_tiles;
    case CCA_Q4_0: return &q4_0_tiles;
    case CCA_Q4_1: return &q4_1_tiles;
    case CCA_Q5_0: return &q5_0_tiles;
    case CCA_Q5_1: return &q5_1_tiles;
    case CCA_IQ4_NL: return &iq4_nl_tiles;
    case CCA_Q2_K: return &q2_k_tiles;
    case CCA_Q3_K: return &q3_k_tiles;
    case CCA_Q4_K: return &q4_k_tiles;
    case CCA_Q5_K: return &q5_k_tiles;
    case CCA_Q6_K: return &q6_k_tiles;
    case CCA_IQ4_XS: return &iq4_xs_tiles;
    default: return products(type);
    }
}

/* ---- attention ----------------------------------------------------------------------- */

/* Scores of up to 16 rows with the 64 keys of a packed tile, in C0 … C3. */
INLINE void tile_scores(const bf16_attend *t, int64_t row) {
    const size_t q_stride = (size_t)t->width * sizeof *t->q;
    const size_t k_stride = CCA_TILE_K * sizeof *t->k;
    zero_tiles();
    for (int64_t d = 0; d < t->width; d += TILE_VALUES) {
        const float *k = t->k + d / 2 * CCA_TILE_K;
        _tile_loadd(4, t->q + row * t->width + d, q_stride);
        _tile_loadd(6, k, k_stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, k + WIDTH, k_stride);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(6, k + 2 * WIDTH, k_stride);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(7, k + 3 * WIDTH, k_stride);
        _tile_dpbf16ps(3, 4, 7);
    }
}

/* out of the rows += weights × values: 32 dims at a time, of up to 32 keys or of 64. */
INLINE void tile_weigh(const bf16_attend *t, int64_t row, const bool second) {
    const size_t stride = (size_t)t->width * sizeof(float);
    const size_t p_stride = CCA_TILE_K * sizeof *t->p;
    _tile_loadd(4, t->p, p_stride);
    if (second) _tile_loadd(5, t->p + TILE_VALUES, p_stride);
    for (int64_t d = 0; d < t->width; d += 2 * WIDTH) {
        float *out = t->out + row * t->width + d;
        const float *v = t->v + d, *below = v + (int64_t)TILE_ROWS * t->width;
        _tile_loadd(0, out, stride);
        _tile_loadd(1, out + WIDTH, stride);
        _tile_loadd(6, v, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, v + WIDTH, stride);
        _tile_dpbf16ps(1, 4, 7);
        if (second) {
            _tile_loadd(6, below, stride);
            _tile_dpbf16ps(0, 5, 6);
            _tile_loadd(7, below + WIDTH, stride);
            _tile_dpbf16ps(1, 5, 7);
        }
        _tile_stored(0, out, stride);
        _tile_stored(1, out + WIDTH, stride);
    }
}

static void tile_add_rows(const bf16_attend *t, int64_t row, int64_t n, int64_t n_k) {
    float scores[TILE_ROWS][CCA_TILE_K];
    tile_scores(t, row);
    _tile_stored(0, scores[0], sizeof *scores);
    _tile_stored(1, scores[0] + WIDTH, sizeof *scores);
    _tile_stored(2, scores[0] + 2 * WIDTH, sizeof *scores);
    _tile_stored(3, scores[0] + 3 * WIDTH, sizeof *scores);
    for (int64_t i = 0; i < n; i++) {
        __m512 s[ATTEND_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < ATTEND_VECTORS; v++) s[v] = _mm512_loadu_ps(scores[i] + v * WIDTH);
        bf16_softmax(t, row + i, (int)i, s);
    }
    if (n_k > TILE_VALUES) {
        tile_weigh(t, row, true);
    } else {
        tile_weigh(t, row, false);
    }
}

/* Keys that are missing in a tile weigh nothing, and their values must be numbers. */
static void tile_add_packed(const bf16_attend *t, int64_t first, int64_t n, int64_t n_k) {
    const int64_t pairs = (n_k + 1) / 2, all = steps_of(n_k) * TILE_VALUES / 2;
    int64_t rows = 0;
    memset(t->v + pairs * t->width, 0, (size_t)((all - pairs) * t->width) * sizeof *t->v);
    for (int64_t i = first, some; i < first + n; i += some) {
        some = cca_min(TILE_ROWS, first + n - i);
        if (!bf16_any_sees(t, i, some)) continue;
        if (some != rows) {
            tiles_for(some, some);
            rows = some;
        }
        tile_add_rows(t, i, some, n_k);
    }
    _tile_release();
}

static void attend(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                   int64_t n, float *scratch) {
    attend_by(args, head, n_heads, row, n, scratch, tile_add_packed);
}

static double spin(float *sink, cca_peak kind, int64_t turns) {
    static const uint16_t ones[TILE_ROWS][TILE_VALUES] = {{0x3f80}};
    if (kind != CCA_PEAK_BF16) return avx512_spin(sink, kind, turns);
    tiles_for(TILE_ROWS, TILE_ROWS);
    zero_tiles();
    _tile_loadd(4, ones, TILE_BYTES);
    _tile_loadd(5, ones, TILE_BYTES);
    _tile_loadd(6, ones, TILE_BYTES);
    _tile_loadd(7, ones, TILE_BYTES);
    for (int64_t t = 0; t < turns; t++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sink, TILE_BYTES);
    _tile_release();
    return 4.0 * 2 * TILE_ROWS * TILE_ROWS * TILE_VALUES * (double)turns;
}

const cca_kernels cca_kernels_amx = {
    CCA_SIMD_KERNELS("amx"), .products = tile_products, .few = few, .attend = attend, .spin = spin,
};

/* ---- whether it runs ------------------------------------------------------------------ */

/* A product whose sums are known. */
static bool trial_succeeds(void) {
    uint16_t x[TILE_ROWS][TILE_VALUES];
    float panel[STEP] = {0}, sums[PAIR][PAIR];
    for (int i = 0; i < TILE_ROWS; i++) {
        for (int k = 0; k < TILE_VALUES; k++) x[i][k] = cca_f32_to_bf16((float)i);
    }
    for (int i = 0; i < STEP; i++) panel[i] = cca_float_of_bits(0x3f803f80); /* twice 1 */
    tile_multiply(sums[0], PAIR, x, sizeof *x, TILE_ROWS, CCA_BF16, panel, PAIR, TILE_VALUES,
                  false);
    for (int i = 0; i < TILE_ROWS; i++) {
        for (int j = 0; j < PAIR; j++) {
            if (sums[i][j] != (float)(i * TILE_VALUES)) return false;
        }
    }
    return true;
}

bool cca_amx_runs(void) {
    enum { LEAF = 7, BF16_BIT = 22, TILE_BIT = 24 }; /* of CPUID's edx */
    enum { CONFIG_STATE = 17, DATA_STATE = 18 };     /* of XCR0 */
    enum { ARCH_REQ_XCOMP_PERM = 0x1023 };           /* of asm/prctl.h */
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid_count(LEAF, 0, &a, &b, &c, &d)) return false;
    if (!(d >> BF16_BIT & 1) || !(d >> TILE_BIT & 1)) return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!(low >> CONFIG_STATE & 1) || !(low >> DATA_STATE & 1)) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, DATA_STATE) == 0 && trial_succeeds();
}
