// Attention without storing its scores (Dao and others, "FlashAttention", 2022): block after block of cells, the sums of a row are
// rescaled when it meets a larger score. Both products of a block are the tiles of product_kernel.h, with keys or values as
// panels; heads that share these are rows of one product. Cells that no row sees are passed over, which in a batch of many
// prompts are most.

#include "exponential.h"
#include "product_kernel.h"

#include <math.h>

static_assert(attention_rows % 8 == 0 && attention_cells % (int) PANEL == 0, "panels begin on whole vectors and end inside the scratch");

static const uint16_t UNSEEN = 0xfc00; // -infinity in half precision

// n is a multiple of 8.
static inline bool sees_any(const uint16_t * mask, int64_t n) {
    const __m128i unseen = _mm_set1_epi16((short) UNSEEN);
    for (int64_t i = 0; i < n; i += 8) {
        if (_mm_movemask_epi8(_mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *) (mask + i)), unseen)) != 0xffff) {
            return true;
        }
    }
    return false;
}

// panel[p][j] = v[p][j] for `width` numbers of k rows, zeros beyond.
static void spread(const char * v, int64_t row_bytes, int64_t width, int64_t at, int64_t k, float * panel) {
    for (int64_t p = 0; p < k; ++p) {
        for (int64_t j = 0; j < PANEL; j += 8) {
            _mm256_store_ps(panel + p * PANEL + j, j < width ? widen<float_16>(v + p * row_bytes, at + j) : _mm256_setzero_ps());
        }
    }
}

// Scores of a row become its weights, relative to the best score so far. Returns false if it sees none of these cells, which the
// mask says and not the scores: those may all be NaN, which must come out.
static inline bool weigh(float * scores, const uint16_t * mask, int64_t n, float & best, float & sum, float * out, int64_t width) {
    if (!sees_any(mask, n)) {
        return false;
    }
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 added = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (mask + i)));
        _mm256_storeu_ps(scores + i, _mm256_add_ps(_mm256_loadu_ps(scores + i), added));
    }
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; ++i) {
        top = scores[i] > top ? scores[i] : top;
    }
    if (top > best) {
        const float factor = best == -INFINITY ? 0 : exponential(best - top);
        for (int64_t i = 0; i < width; ++i) {
            out[i] *= factor;
        }
        sum *= factor;
        best = top;
    }
    float more = 0;
#pragma omp simd reduction(+ : more)
    for (int64_t i = 0; i < n; ++i) {
        const float weight = exponential(scores[i] - best);
        scores[i] = scores[i] == -INFINITY ? 0 : weight;
        more += scores[i];
    }
    sum += more;
    return true;
}

static void attend(const attention * a, int64_t kv_head, int64_t n0, int64_t n, float * scratch) {
    const int64_t dk = a->k_width, dv = a->v_width, group = a->group;
    float * const q      = scratch;
    float * const out    = q + attention_rows * attention_width;
    float * const scores = out + attention_rows * attention_width;
    float * const best   = scores + attention_rows * attention_cells;
    float * const sum    = best + attention_rows;
    float * const keys   = sum + attention_rows;
    float * const values = keys + attention_cells * attention_width;
    for (int64_t r = 0; r < n * group; ++r) {
        const float * from = (const float *) (a->q + (n0 + r / group) * a->q_row + (kv_head * group + r % group) * a->q_head);
        for (int64_t i = 0; i < dk; ++i) {
            q[r * dk + i] = from[i] * a->scale;
        }
        best[r] = -INFINITY;
        sum[r]  = 0;
    }
    memset(out, 0, n * group * dv * sizeof(float));
    for (int64_t cell = 0; cell < a->n_cells; cell += attention_cells) {
        const int64_t cells = a->n_cells - cell < attention_cells ? a->n_cells - cell : (int64_t) attention_cells;
        const auto mask_of  = [&](int64_t row) { return (const uint16_t *) (a->mask + (n0 + row) * a->mask_row) + cell; };
        int64_t first = 0, last = n;
        while (first < n && !sees_any(mask_of(first), cells)) {
            first++;
        }
        while (last > first && !sees_any(mask_of(last - 1), cells)) {
            last--;
        }
        if (first == last) {
            continue;
        }
        const int64_t rows = (last - first) * group;
        float * const s = scores + first * group * attention_cells, * const o = out + first * group * dv;
        const char *  k = a->k + kv_head * a->k_head + cell * a->k_cell, * v = a->v + kv_head * a->v_head + cell * a->v_cell;
        for (int64_t j = 0; j < cells; j += PANEL) {
            pack<float_16>(k + j * a->k_cell, a->k_cell, cells - j, 0, dk, keys);
            rows_by_panel(rows, keys, q + first * group * dk, dk, s + j, attention_cells, dk, PANEL, false);
        }
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t at = first * group + r;
            if (!weigh(s + r * attention_cells, mask_of(at / group), cells, best[at], sum[at], o + r * dv, dv)) {
                memset(s + r * attention_cells, 0, cells * sizeof(float));
            }
        }
        for (int64_t j = 0; j < dv; j += PANEL) {
            spread(v, a->v_cell, dv - j, j, cells, values);
            rows_by_panel(rows, values, s, attention_cells, o + j, dv, cells, dv - j < PANEL ? dv - j : (int64_t) PANEL, true);
        }
    }
    for (int64_t r = 0; r < n * group; ++r) {
        float * const to     = a->out + ((n0 + r / group) * a->n_head + kv_head * group + r % group) * dv;
        const float   factor = sum[r] == 0 ? 0 : 1 / sum[r];
        for (int64_t i = 0; i < dv; ++i) {
            to[i] = out[r * dv + i] * factor;
        }
    }
}
