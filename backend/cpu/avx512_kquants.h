/* Weights of kquants.h by dot products of bytes; a part of avx512.h. 256 values of a row, a large
 * block or several small ones side by side, are taken apart in registers, unsigned:
 *
 *     value i = scale[i / 16] u[i] - min[i / 16]
 *
 * For few rows of x these bytes are what is multiplied, with x in 8 bits and a scale for each 32
 * values, which has the sums that minima are multiplied with beside it:
 *
 *     sum over s of  scale[s] x.scale[s] (u[s] · x.q[s]) - min[s] x.sum[s]       s: each 16 values
 *
 * For many rows the panel is that of q8_0: weights are rounded to 8 bits with a scale for each 32
 * values, so that blocks of one scale and no minimum stay as they are, and the others come within
 * half a 127th of the largest value that their scales allow. */

enum { LARGE = CCA_LARGE_BLOCK, SCALES = LARGE / CCA_SCALED, VECTORS = LARGE / 64 };

typedef struct large_apart {
    __m512i u[VECTORS];
    __m512 scale, min;
} large_apart;

/* What a type's bytes reach. */
INLINE int largest_byte(cca_dtype type) {
    switch (type) {
    case CCA_Q2_K: return 3;
    case CCA_Q3_K: return 7;
    case CCA_Q4_1:
    case CCA_Q4_K: return 15;
    case CCA_Q5_1:
    case CCA_Q5_K: return 31;
    default: return 63; /* q6_k */
    }
}

/* Which byte stands for 0 where all 32 values of a scale have that scale and no minimum; else -1. A
 * constant where the type is one. */
#define ZERO_BYTE(type)                                                                            \
    ((type) == CCA_IQ4_NL || (type) == CCA_IQ4_XS ? 128 : (type) == CCA_Q5_0 ? 16 : -1)

/* ---- taking blocks apart ---------------------------------------------------------------- */

INLINE __m512i twice(const uint8_t *bytes) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)bytes));
}

/* Bits of each byte: those from `first` on of the first 32, from `second` on of the others. */
INLINE __m512i bits_of(__m512i bytes, int first, int second, int mask) {
    const __m512i by = _mm512_set_epi64(second, second, second, second, first, first, first, first);
    return _mm512_and_si512(_mm512_srlv_epi64(bytes, by), _mm512_set1_epi8((char)mask));
}

/* Adds a number where bit 2 part of 32 bytes is set, and to the others where bit 2 part + 1 is. */
INLINE __m512i add_where(__m512i u, __m512i bits, int part, int number) {
    const __m256i first = _mm256_set1_epi8((char)(1 << 2 * part));
    const __m256i second = _mm256_set1_epi8((char)(2 << 2 * part));
    const __m512i own = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
    return _mm512_mask_add_epi8(u, _mm512_test_epi8_mask(bits, own), u,
                                _mm512_set1_epi8((char)number));
}

/* Sixteen halves side by side: in each four bytes the lower ones, then the upper ones. */
INLINE __m512i halves_of_16(__m512i u) {
    const __m512i by = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    return _mm512_and_si512(_mm512_srlv_epi64(u, by), _mm512_set1_epi8(15));
}

INLINE __m512i iq4_bytes(__m512i u) { /* the values that four bits stand for, plus 128 */
    const __m128i values =
        _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153, (char)166,
                      (char)181, (char)197, (char)217, (char)241);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), u);
}

INLINE __m512 times_half(uint16_t half, __m512i whole) {
    const __m512 everywhere = _mm512_cvtph_ps(_mm256_set1_epi16((short)half));
    return _mm512_mul_ps(everywhere, _mm512_cvtepi32_ps(whole));
}

INLINE __m512i each_twice(uint64_t bytes) {
    const __m128i some = _mm_cvtsi64_si128((long long)bytes);
    return _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(some, some));
}

/* As cca_scale_eight, four at a time. */
INLINE void take_scale_eight(large_apart *out, uint16_t d, uint16_t min, const uint8_t *scales) {
    const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x30303030;
    uint32_t first[3];
    memcpy(first, scales, sizeof first);
    const uint64_t last_scales = (first[2] & four) | (first[0] >> 2 & two);
    const uint64_t last_minima = (first[2] >> 4 & four) | (first[1] >> 2 & two);
    out->scale = times_half(d, each_twice((first[0] & six) | last_scales << 32));
    out->min = times_half(min, each_twice((first[1] & six) | last_minima << 32));
}

/* A scale of six bits less 32; what stands for 0 is a minimum of the same scale. */
INLINE void take_scale_signed(large_apart *out, uint16_t d, __m512i scales, float zero) {
    out->scale = times_half(d, _mm512_sub_epi32(scales, _mm512_set1_epi32(32)));
    out->min = _mm512_mul_ps(out->scale, _mm512_set1_ps(zero));
}

INLINE void take_q2_k(large_apart *out, const cca_q2_k *in) {
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        out->u[i] = bits_of(twice(in->q + i / 2 * 32), i % 2 * 4, i % 2 * 4 + 2, 3);
    }
    const __m512i scales = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)in->scales));
    out->scale = times_half(in->d, _mm512_and_si512(scales, _mm512_set1_epi32(15)));
    out->min = times_half(in->min, _mm512_srli_epi32(scales, 4));
}

INLINE void take_q3_k(large_apart *out, const cca_q3_k *in) {
    const uint32_t four = 0x0f0f0f0f, two = 0x03030303;
    const __m512i high = twice(in->high);
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        const __m512i low = bits_of(twice(in->q + i / 2 * 32), i % 2 * 4, i % 2 * 4 + 2, 3);
        out->u[i] = add_where(low, high, i, 4);
    }
    uint32_t w[3];
    memcpy(w, in->scales, sizeof w);
    const __m128i scales = _mm_setr_epi32((int)((w[0] & four) | (w[2] & two) << 4),
                                          (int)((w[1] & four) | (w[2] >> 2 & two) << 4),
                                          (int)((w[0] >> 4 & four) | (w[2] >> 4 & two) << 4),
                                          (int)((w[1] >> 4 & four) | (w[2] >> 6 & two) << 4));
    take_scale_signed(out, in->d, _mm512_cvtepu8_epi32(scales), 4);
}

INLINE void take_q4_k(large_apart *out, const cca_q4_k *in) {
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) out->u[i] = bits_of(twice(in->q + 32 * i), 0, 4, 15);
    take_scale_eight(out, in->d, in->min, in->scales);
}

INLINE void take_q5_k(large_apart *out, const cca_q5_k *in) {
    const __m512i high = twice(in->high);
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        out->u[i] = add_where(bits_of(twice(in->q + 32 * i), 0, 4, 15), high, i, 16);
    }
    take_scale_eight(out, in->d, in->min, in->scales);
}

INLINE void take_q6_k(large_apart *out, const cca_q6_k *in) {
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        const __m512i low = _mm512_loadu_si512(in->q + i / 2 * 64);
        const __m512i upper = bits_of(twice(in->high + i / 2 * 32), i % 2 * 4, i % 2 * 4 + 2, 3);
        out->u[i] =
            _mm512_or_si512(bits_of(low, i % 2 * 4, i % 2 * 4, 15), _mm512_slli_epi16(upper, 4));
    }
    const __m128i scales = _mm_loadu_si128((const __m128i *)in->scales);
    out->scale = times_half(in->d, _mm512_cvtepi8_epi32(scales));
    out->min = _mm512_mul_ps(out->scale, _mm512_set1_ps(32));
}

INLINE void take_iq4_xs(large_apart *out, const cca_iq4_xs *in) {
    const __m512i words = _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3);
    const __m512i place = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        const __m512i halves = _mm512_permutexvar_epi64(words, twice(in->q + 32 * i));
        out->u[i] = iq4_bytes(halves_of_16(halves));
    }
    uint32_t low;
    uint16_t high;
    memcpy(&low, in->scales_low, sizeof low);
    memcpy(&high, in->scales_high, sizeof high);
    const __m512i lower =
        _mm512_srlv_epi32(_mm512_set1_epi32((int)low), _mm512_slli_epi32(place, 2));
    const __m512i upper = _mm512_srlv_epi32(_mm512_set1_epi32(high), _mm512_slli_epi32(place, 1));
    take_scale_signed(
        out, in->d,
        _mm512_or_si512(_mm512_and_si512(lower, _mm512_set1_epi32(15)),
                        _mm512_slli_epi32(_mm512_and_si512(upper, _mm512_set1_epi32(3)), 4)),
        128);
}

/* Two small blocks side by side, of which the second may be missing. All types begin with d and
 * end with the bytes of halves, four bytes of fifth bits before them. */
INLINE __m512i take_small_pair(cca_dtype type, const char *w, size_t size, bool both) {
    const size_t bytes = both ? 2 * size : size;
    const __m512i all = _mm512_maskz_loadu_epi8((UINT64_C(1) << bytes) - 1, w);
    const int a = (int)(size - sizeof((cca_q4_1 *)0)->q) / 2, b = a + (int)size / 2;
    const __m512i order = _mm512_add_epi16(
        _mm512_set_epi16(7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 7,
                         6, 5, 4, 3, 2, 1, 0),
        _mm512_inserti64x4(_mm512_set1_epi16((short)a), _mm256_set1_epi16((short)b), 1));
    const __m512i u = halves_of_16(_mm512_permutexvar_epi16(order, all));
    if (type == CCA_IQ4_NL) return iq4_bytes(u);
    if (type == CCA_Q4_1) return u;
    uint32_t first = 0, second = 0;
    memcpy(&first, w + 2 * (size_t)a - sizeof first, sizeof first);
    if (both) memcpy(&second, w + 2 * (size_t)b - sizeof second, sizeof second);
    return _mm512_mask_add_epi8(u, first | (uint64_t)second << 32, u, _mm512_set1_epi8(16));
}

/* Each block's number at `at`, an f16, twice; 0 for blocks that are not there. */
INLINE __m512 halves_each_twice(__m256i words) {
    const __m512i place = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m256 numbers = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(words));
    return _mm512_permutexvar_ps(place, _mm512_castps256_ps512(numbers));
}

INLINE void take_small(large_apart *out, cca_dtype type, const char *w, int64_t n_blocks) {
    const size_t size = type == CCA_Q4_1   ? sizeof(cca_q4_1)
                        : type == CCA_Q5_0 ? sizeof(cca_q5_0)
                        : type == CCA_Q5_1 ? sizeof(cca_q5_1)
                                           : sizeof(cca_iq4_nl);
    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i at = _mm256_mullo_epi32(place, _mm256_set1_epi32((int)size));
    const __mmask8 there = (__mmask8)(n_blocks >= 8 ? 255 : (1 << n_blocks) - 1);
    const __m256i head =
        _mm256_mmask_i32gather_epi32(_mm256_setzero_si256(), there, at, (const int *)w, 1);
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        const char *pair = w + (size_t)(2 * i) * size;
        out->u[i] = 2 * i < n_blocks ? take_small_pair(type, pair, size, 2 * i + 1 < n_blocks)
                                     : _mm512_setzero_si512();
    }
    out->scale = halves_each_twice(head);
    if (type == CCA_Q5_0 || type == CCA_IQ4_NL) {
        out->min = _mm512_mul_ps(out->scale, _mm512_set1_ps((float)ZERO_BYTE(type)));
    } else { /* the file has the minimum's negative */
        const __m512 negative = halves_each_twice(_mm256_srli_epi32(head, 16));
        out->min = _mm512_sub_ps(_mm512_setzero_ps(), negative);
    }
}

/* The next values of a row, up to 256 of n. */
INLINE void large_take(large_apart *out, cca_dtype type, const char *w, int64_t n) {
    switch (type) {
    case CCA_Q2_K: take_q2_k(out, (const cca_q2_k *)w); break;
    case CCA_Q3_K: take_q3_k(out, (const cca_q3_k *)w); break;
    case CCA_Q4_K: take_q4_k(out, (const cca_q4_k *)w); break;
    case CCA_Q5_K: take_q5_k(out, (const cca_q5_k *)w); break;
    case CCA_Q6_K: take_q6_k(out, (const cca_q6_k *)w); break;
    case CCA_IQ4_XS: take_iq4_xs(out, (const cca_iq4_xs *)w); break;
    default: take_small(out, type, w, n / CCA_SMALL_BLOCK);
    }
}

INLINE size_t large_bytes(cca_dtype type) {
    switch (type) {
    case CCA_Q2_K: return sizeof(cca_q2_k);
    case CCA_Q3_K: return sizeof(cca_q3_k);
    case CCA_Q4_K: return sizeof(cca_q4_k);
    case CCA_Q5_K: return sizeof(cca_q5_k);
    case CCA_Q6_K: return sizeof(cca_q6_k);
    case CCA_IQ4_XS: return sizeof(cca_iq4_xs);
    case CCA_Q4_1: return 8 * sizeof(cca_q4_1);
    case CCA_Q5_0: return 8 * sizeof(cca_q5_0);
    case CCA_Q5_1: return 8 * sizeof(cca_q5_1);
    default: return 8 * sizeof(cca_iq4_nl);
    }
}

/* ---- few rows of x -------------------------------------------------------------------- */

typedef struct large_x {
    int8_t q[LARGE];
    float scale[SCALES], sum[SCALES]; /* scale times the sum of 16 q */
} large_x;

static size_t large_x_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)((n + LARGE - 1) / LARGE) * sizeof(large_x);
}

/* Behind the last value all is 0. */
static void large_x_convert(void *out, cca_dtype type, const float *x, int64_t n) {
    large_x *to = out;
    (void)type;
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t at = i % LARGE;
        if (at == 0 && i > 0) to++;
        if (at == 0 && n - i < LARGE) memset(to, 0, sizeof *to);
        float scale;
        int32_t all, fours[BLOCK / 4];
        const __m256i q = byte_round(&scale, &all, x + i);
        const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q);
        _mm256_storeu_si256((__m256i *)(to->q + at), q);
        _mm256_storeu_si256((__m256i *)fours, sums);
        const int32_t first = fours[0] + fours[1] + fours[2] + fours[3];
        to->scale[at / CCA_SCALED] = to->scale[at / CCA_SCALED + 1] = scale;
        to->sum[at / CCA_SCALED] = scale * (float)first;
        to->sum[at / CCA_SCALED + 1] = scale * (float)(all - first);
    }
}

INLINE void large_dot(__m512 *sum, const large_apart *w, const large_x *x) {
    const __m512i fours = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512 scale = _mm512_mul_ps(w->scale, _mm512_loadu_ps(x->scale));
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        const __m512i own = _mm512_add_epi32(fours, _mm512_set1_epi32(4 * i));
        const __m512i part =
            _mm512_dpbusd_epi32(_mm512_setzero_si512(), w->u[i], _mm512_loadu_si512(x->q + 64 * i));
        sum[i % 2] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), _mm512_permutexvar_ps(own, scale),
                                     sum[i % 2]);
    }
    sum[0] = _mm512_fnmadd_ps(w->min, _mm512_loadu_ps(x->sum), sum[0]);
}

/* One row of weights times one of x. */
INLINE __m512 large_dot_row(const large_x *x, cca_dtype type, const char *w, int64_t n) {
    const size_t size = large_bytes(type);
    __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (; n >= LARGE; n -= LARGE, w += size, x++) {
        large_apart apart;
        for (size_t line = 0; line < size; line += 64) _mm_prefetch(w + AHEAD + line, _MM_HINT_T0);
        large_take(&apart, type, w, LARGE);
        large_dot(sum, &apart, x);
    }
    if (n > 0) {
        large_apart apart;
        large_take(&apart, type, w, n);
        large_dot(sum, &apart, x);
    }
    return _mm512_add_ps(sum[0], sum[1]);
}

/* ---- panels ----------------------------------------------------------------------------- */

/* What a row's values are rounded to: unsigned bytes with 128 for 0, and a scale for each 32. */
typedef struct large_rounded {
    uint8_t q[LARGE];
    float scale[SCALES]; /* each twice */
} large_rounded;

/* The largest magnitude that 32 values can have by their scales; no number where one of these is
 * none. */
INLINE __m512 largest_of_32(const large_apart *w, cca_dtype type) {
    const __m512 most = _mm512_set1_ps((float)largest_byte(type));
    const __m512 high = _mm512_abs_ps(_mm512_fmsub_ps(most, w->scale, w->min));
    const __m512 low = _mm512_abs_ps(w->min), larger = _mm512_max_ps(high, low);
    const uint32_t odd =
        _mm512_cmp_ps_mask(_mm512_add_ps(high, low), _mm512_set1_ps(INFINITY), _CMP_NLT_UQ);
    const uint32_t either = odd | (odd & 0x5555) << 1 | (odd & 0xaaaa) >> 1;
    return _mm512_mask_mov_ps(_mm512_max_ps(larger, _mm512_permute_ps(larger, 0xb1)),
                              (__mmask16)either, _mm512_set1_ps(NAN));
}

INLINE void large_round(large_rounded *out, const large_apart *w, cca_dtype type) {
    if (ZERO_BYTE(type) >= 0) {
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            _mm512_storeu_si512(
                out->q + 64 * i,
                _mm512_add_epi8(w->u[i], _mm512_set1_epi8((char)(128 - ZERO_BYTE(type)))));
        }
        _mm512_storeu_ps(out->scale, w->scale);
        return;
    }
    const __m512 largest = largest_of_32(w, type), zero = _mm512_setzero_ps();
    const __mmask16 some = _mm512_cmp_ps_mask(largest, zero, _CMP_GT_OQ);
    const __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(127), largest);
    float by[SCALES], start[SCALES];
    _mm512_storeu_ps(out->scale, _mm512_div_ps(largest, _mm512_set1_ps(127)));
    _mm512_storeu_ps(by, _mm512_mul_ps(w->scale, inverse));
    _mm512_storeu_ps(start, _mm512_fnmadd_ps(w->min, inverse, _mm512_set1_ps(128)));
#pragma GCC unroll 16
    for (int s = 0; s < SCALES; s++) {
        const __m128i bytes = s % 4 == 0   ? _mm512_extracti32x4_epi32(w->u[s / 4], 0)
                              : s % 4 == 1 ? _mm512_extracti32x4_epi32(w->u[s / 4], 1)
                              : s % 4 == 2 ? _mm512_extracti32x4_epi32(w->u[s / 4], 2)
                                           : _mm512_extracti32x4_epi32(w->u[s / 4], 3);
        const __m512 values = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)),
                                              _mm512_set1_ps(by[s]), _mm512_set1_ps(start[s]));
        _mm_storeu_si128((__m128i *)(out->q + s * CCA_SCALED),
                         _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(values)));
    }
}

/* WIDTH rows of up to 256 values: words side by side. */
INLINE void large_put(byte_panel *panel, const large_rounded *rows, int64_t at, int64_t n_blocks) {
    for (int64_t b = 0; b < n_blocks; b += 2) {
        vec v[WIDTH];
#pragma GCC unroll 16
        for (int r = 0; r < WIDTH; r++) v[r] = (vec)_mm512_loadu_si512(rows[r].q + b * BLOCK);
        transpose(v);
        for (int64_t i = 0; i < cca_min(2, n_blocks - b); i++) {
            byte_panel *to = panel + b + i;
            for (int r = 0; r < WIDTH; r++) to->scale[at + r] = rows[r].scale[2 * (b + i)];
            for (int k = 0; k < WORDS; k++) {
                store((float *)to->words[k] + at, v[i * WORDS + k]);
            }
        }
    }
}

INLINE void large_pack(byte_panel *panel, cca_dtype type, const char *w, size_t w_stride,
                       int64_t n_w, int64_t n) {
    for (int64_t k = 0; k < n; k += LARGE, w += large_bytes(type)) {
        for (int64_t at = 0; at < PAIR; at += WIDTH) {
            large_rounded rows[WIDTH];
            for (int64_t r = 0; r < WIDTH; r++) {
                large_apart apart;
                const int64_t row = cca_min(at + r, n_w - 1);
                large_take(&apart, type, w + (size_t)row * w_stride, n - k);
                large_round(&rows[r], &apart, type);
            }
            large_put(panel + k / BLOCK, rows, at, cca_min(LARGE, n - k) / BLOCK);
        }
    }
}
