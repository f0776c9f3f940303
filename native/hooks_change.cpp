// The arithmetic of interventions.
#include "hooks.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

// `after` from `before`, for row i of a patch.
bool hook_table::change(const patch & p, size_t i) {
    const bool attends = of_attention(p.hook);
    std::vector<char> visible;
    if (attends) {
        visible.assign(before.size(), 0);
        for (size_t head = 0; head * p.keys < before.size(); ++head) {
            for (int32_t key : seen.keys) {
                visible[head * p.keys + key] = 1;
            }
        }
    }
    const float * value = p.values ? p.values + i * p.width : nullptr;
    const auto each = [&](auto && work) {
        int64_t j = 0;
        for (const span & s : p.spans) {
            for (int32_t k = s.first; k < s.first + s.count; ++k, ++j) {
                if (!attends || visible[k]) {
                    work(k, value ? value[j] : 0.0f);
                }
            }
        }
    };
    after = before;
    double along = 0.0; // the direction
    if (p.op == patch_op::remove || p.op == patch_op::keep) {
        each([&](int32_t k, float v) { along += static_cast<double>(before[k]) * v; });
    }
    const float dot = static_cast<float>(along);
    switch (p.op) {
        case patch_op::replace: each([&](int32_t k, float v) { after[k] = v; }); break;
        case patch_op::add:     each([&](int32_t k, float v) { after[k] = before[k] + p.factor * v; }); break;
        case patch_op::scale:   each([&](int32_t k, float) { after[k] = before[k] * p.factor; }); break;
        case patch_op::zero:    each([&](int32_t k, float) { after[k] = 0.0f; }); break;
        case patch_op::remove:  each([&](int32_t k, float v) { after[k] = before[k] - p.factor * dot * v; }); break;
        case patch_op::keep:    each([&](int32_t k, float v) { after[k] = before[k] - p.factor * (before[k] - dot * v); }); break;
        case patch_op::clamp:   each([&](int32_t k, float) { after[k] = std::min(std::max(before[k], p.factor), p.upper); }); break;
        default:                each([&](int32_t k, float) { after[k] = -INFINITY; }); break;
    }
    double delta = 0.0, squares = 0.0;
    const bool scores = p.hook == hook_point::attn_scores;
    for (size_t k = 0; k < after.size(); ++k) {
        if (scores && after[k] == -INFINITY) { // not seen
            delta += p.op == patch_op::cut && before[k] != -INFINITY;
            continue;
        }
        const double d = after[k] == before[k] ? 0.0 : static_cast<double>(after[k]) - before[k];
        delta += d * d;
        squares += static_cast<double>(after[k]) * after[k];
    }
    // Numbers whose squares overflow in the next norm come out of it as zeros. Unwritten, so that nothing of it gets into the
    // cache.
    if (!(squares <= FLT_MAX)) {
        fail("NOT_FINITE", "an intervention at layer " + std::to_string(p.layer) +
            " makes NaN, infinity or numbers outside the range of the model's arithmetic");
        return false;
    }
    p.deltas[i] = static_cast<float>(p.op == patch_op::cut ? delta : std::sqrt(delta));
    return true;
}
