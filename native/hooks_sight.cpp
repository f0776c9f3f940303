// What a row of the attention sees: which positions lie in which cells of the cache, and which of them the mask leaves open.
#include "hooks.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <algorithm>
#include <cmath>

void hook_table::learn_cells(const ggml_tensor * store, int32_t layer) {
    const ggml_tensor * to = store->src[1];
    const size_t        n  = rows.output_row.size();
    if (store->op != GGML_OP_SET_ROWS || to->type != GGML_TYPE_I64 || ggml_nelements(to) != static_cast<int64_t>(n)) {
        return fail("NATIVE_FAILURE", "the cells of the batch are not where they were expected");
    }
    std::vector<int64_t> indices(n);
    ggml_backend_tensor_get(to, indices.data(), 0, n * sizeof(int64_t));
    for (size_t i = 0; i < n; ++i) {
        if (indices[i] < 0 || indices[i] >= n_cells) {
            return fail("NATIVE_FAILURE", "a cell of the batch lies outside the cache");
        }
        cells[layer][indices[i]] = rows.positions[i];
    }
}

// The cells that a row attends to are those that its mask leaves open.
bool hook_table::read_sight(const ggml_tensor * mask, const place & where, int32_t batch_row) {
    seen = {};
    const int64_t n = mask->ne[0];
    if (n > n_cells || batch_row >= mask->ne[1] || (mask->type != GGML_TYPE_F32 && mask->type != GGML_TYPE_F16)) {
        fail("NATIVE_FAILURE", "the attention mask has an unexpected shape");
        return false;
    }
    std::vector<float> open(n);
    if (mask->type == GGML_TYPE_F32) {
        ggml_backend_tensor_get(mask, open.data(), batch_row * mask->nb[1], n * sizeof(float));
    } else {
        std::vector<ggml_fp16_t> half(n);
        ggml_backend_tensor_get(mask, half.data(), batch_row * mask->nb[1], n * sizeof(ggml_fp16_t));
        ggml_fp16_to_fp32_row(half.data(), open.data(), n);
    }
    for (int32_t cell = 0; cell < n; ++cell) {
        if (open[cell] == -INFINITY) {
            continue;
        }
        const int32_t key = cells[where.layer][cell];
        if (key < 0) {
            fail("NATIVE_FAILURE", "a row attends to a cell that nothing was stored in");
            return false;
        }
        if (key < where.keys) {
            seen.cells.push_back(cell);
            seen.keys.push_back(key);
        } else {
            seen.more = true;
        }
    }
    return true;
}

// Flash attention reads scores from nowhere: the mask, which all layers share, is changed for the time of one.
void hook_table::cut_mask(ggml_tensor * attention, const patch & p) {
    ggml_tensor * mask = attention->src[3];
    if (!mask) {
        return fail("NATIVE_FAILURE", "the attention has no mask");
    }
    if (masks.empty()) {
        std::vector<char> kept(ggml_nbytes(mask));
        ggml_backend_tensor_get(mask, kept.data(), 0, kept.size());
        masks.emplace_back(mask, std::move(kept));
    }
    for (size_t i = 0; i < p.rows.size(); ++i) {
        if (!read_sight(mask, p, p.rows[i])) {
            return;
        }
        std::vector<char> gone(p.keys, 0);
        for (const span & s : p.spans) {
            std::fill_n(gone.begin() + std::min(s.first, p.keys), std::max(0, std::min(s.count, p.keys - s.first)), 1);
        }
        const float       none = -INFINITY;
        const ggml_fp16_t half = ggml_fp32_to_fp16(none);
        const bool        wide = mask->type == GGML_TYPE_F32;
        size_t            n    = 0;
        for (size_t j = 0; j < seen.cells.size(); ++j) {
            if (gone[seen.keys[j]]) {
                const size_t offset = p.rows[i] * mask->nb[1] + seen.cells[j] * mask->nb[0];
                ggml_backend_tensor_set(mask, wide ? static_cast<const void *>(&none) : &half, offset, mask->nb[0]);
                n++;
            }
        }
        if (n == seen.cells.size() && !seen.more) {
            return fail("INTERVENTION_INVALID", "the heads of layer " + std::to_string(p.layer) +
                " would see nothing from one of the positions: leave them something, such as the first position");
        }
        p.deltas[i] = static_cast<float>(n * points->attention[p.layer].heads);
    }
}
