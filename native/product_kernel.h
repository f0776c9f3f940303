// A product of matrices in single precision (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008):
// weights are widened to f32 and turned into panels of PANEL columns that stay in the first cache, and tiles of ROWS x PANEL
// sums stay in registers. Included by one file for each width of vectors, LANES, which defines it.

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

typedef float lanes __attribute__((vector_size(LANES * 4)));

// A panel of weights has at most DEPTH numbers of each column: 48 KB.
enum { PANEL = 2 * LANES, DEPTH = product_panel / PANEL, ROWS_AT_ONCE = 96 };
static_assert(4 * product_columns * (int) DEPTH <= kernel_scratch, "the scratch holds the panels of a block of columns");

template <int ROWS>
static inline __attribute__((always_inline)) void tile(const float * panel, const float * x, int64_t x_stride, float * c,
    int64_t c_stride, int64_t k, int64_t width, bool add) {
    lanes sums[ROWS][2];
    for (int i = 0; i < ROWS; ++i) {
        sums[i][0] = sums[i][1] = lanes {};
    }
    for (int64_t p = 0; p < k; ++p) {
        const lanes w0 = *(const lanes *) (panel + p * PANEL), w1 = *(const lanes *) (panel + p * PANEL + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i) {
            sums[i][0] += w0 * x[i * x_stride + p];
            sums[i][1] += w1 * x[i * x_stride + p];
        }
    }
    for (int i = 0; i < ROWS; ++i, c += c_stride) {
        if (width == PANEL) {
            // Copies, as rows of any length begin anywhere.
            lanes before[2] = {};
            if (add) {
                memcpy(before, c, sizeof(before));
            }
            const lanes after[2] = { before[0] + sums[i][0], before[1] + sums[i][1] };
            memcpy(c, after, sizeof(after));
        } else {
            float row[PANEL];
            memcpy(row, sums[i], sizeof(row));
            for (int64_t j = 0; j < width; ++j) {
                c[j] = add ? c[j] + row[j] : row[j];
            }
        }
    }
}

// Eight numbers of a row of weights.
template <float_type TYPE>
static inline __attribute__((always_inline)) __m256 widen(const void * row, int64_t at) {
    if (TYPE == float_32) {
        return _mm256_loadu_ps((const float *) row + at);
    }
    const __m128i halves = _mm_loadu_si128((const __m128i *) ((const uint16_t *) row + at));
    return TYPE == float_16 ? _mm256_cvtph_ps(halves)
                            : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static inline __attribute__((always_inline)) void turn(__m256 r[8]) {
    __m256 pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i]     = _mm256_unpacklo_ps(r[i], r[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            fours[i + 2 * j]     = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    }
    for (int i = 0; i < 4; ++i) {
        r[i]     = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
}

// panel[p][j] = w[j][p] for `width` rows of w, zeros beyond. k is a multiple of 8.
template <float_type TYPE>
static void pack(const char * w, int64_t row_bytes, int64_t width, int64_t at, int64_t k, float * panel) {
    for (int64_t j = 0; j < PANEL; j += 8) {
        for (int64_t p = 0; p < k; p += 8) {
            __m256 r[8];
            for (int i = 0; i < 8; ++i) {
                // What is next: rows are too short for the processor to see it coming.
                _mm_prefetch(w + (j + 8 + i) * row_bytes + (at + p) * (TYPE == float_32 ? 4 : 2), _MM_HINT_T0);
                r[i] = j + i < width ? widen<TYPE>(w + (j + i) * row_bytes, at + p) : _mm256_setzero_ps();
            }
            turn(r);
            for (int i = 0; i < 8; ++i) {
                _mm256_store_ps(panel + (p + i) * PANEL + j, r[i]);
            }
        }
    }
}

// A tile of any height.
template <int ROWS = TILE_ROWS>
static inline __attribute__((always_inline)) void tile_of(int64_t rows, const float * panel, const float * x, int64_t x_stride, float * c,
    int64_t c_stride, int64_t k, int64_t width, bool add) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) {
            tile<ROWS>(panel, x, x_stride, c, c_stride, k, width, add);
        } else {
            tile_of<ROWS - 1>(rows, panel, x, x_stride, c, c_stride, k, width, add);
        }
    }
}

// Rows of x times one panel, in as few tiles as it takes, of the same height: a row alone takes two thirds of the time of six, as each of its
// sums waits for the one before.
static inline void rows_by_panel(int64_t rows, const float * panel, const float * x, int64_t x_stride, float * c, int64_t c_stride,
    int64_t k, int64_t width, bool add) {
    const int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t t = 0, i = 0; t < tiles; ++t) {
        const int64_t height = (rows - i) / (tiles - t);
        tile_of(height, panel, x + i * x_stride, x_stride, c + i * c_stride, c_stride, k, width, add);
        i += height;
    }
}

template <float_type TYPE>
static void multiply(const product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch) {
    const int64_t row_bytes = p->w_stride * (TYPE == float_32 ? 4 : 2);
    const char *  w         = (const char *) p->w + m0 * row_bytes;
    const int64_t pieces    = (p->k + DEPTH - 1) / DEPTH, depth = (p->k / 8 + pieces - 1) / pieces * 8; // of the same size
    for (int64_t k0 = 0; k0 < p->k; k0 += depth) {
        const int64_t k   = p->k - k0 < depth ? p->k - k0 : depth;
        const bool    add = k0 > 0;
        for (int64_t j = 0; j < m; j += PANEL) {
            pack<TYPE>(w + j * row_bytes, row_bytes, m - j, k0, k, scratch + j * k);
        }
        const int64_t blocks = (n + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
        const int64_t whole  = (n + blocks * TILE_ROWS - 1) / (blocks * TILE_ROWS) * TILE_ROWS; // rows of a block: whole tiles
        for (int64_t block = 0; block < n; block += whole) {
            const int64_t rows = n - block < whole ? n - block : whole;
            for (int64_t j = 0; j < m; j += PANEL) {
                const float * panel = scratch + j * k;
                const float * x     = p->x + (n0 + block) * p->x_stride + k0;
                float *       c     = p->c + (n0 + block) * p->c_stride + m0 + j;
                rows_by_panel(rows, panel, x, p->x_stride, c, p->c_stride, k, m - j < PANEL ? m - j : (int64_t) PANEL, add);
            }
        }
    }
}

static void multiply_any(const product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch) {
    switch (p->type) {
        case float_32:  return multiply<float_32>(p, m0, m, n0, n, scratch);
        case float_16:  return multiply<float_16>(p, m0, m, n0, n, scratch);
        case float_b16: return multiply<float_b16>(p, m0, m, n0, n, scratch);
    }
}
