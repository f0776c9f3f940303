#include "logits.h"

#include "exponential.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

void top_k_of(const float * logits, int32_t n_vocab, int32_t k, int32_t * ids, float * values) {
    const auto better = [logits](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
    std::vector<int32_t> best(k);
    std::iota(best.begin(), best.end(), 0);
    std::make_heap(best.begin(), best.end(), better);
    float worst = logits[best.front()];
    for (int32_t i = k; i < n_vocab; ++i) {
        if (logits[i] > worst) { // rare after the first few
            std::pop_heap(best.begin(), best.end(), better);
            best.back() = i;
            std::push_heap(best.begin(), best.end(), better);
            worst = logits[best.front()];
        }
    }
    std::sort_heap(best.begin(), best.end(), better);
    for (int32_t i = 0; i < k; ++i) {
        ids[i]    = best[i];
        values[i] = logits[best[i]];
    }
}

float maximum(const float * x, int32_t n) {
    float best = -INFINITY;
#pragma omp simd reduction(max : best)
    for (int32_t i = 0; i < n; ++i) {
        best = x[i] > best ? x[i] : best;
    }
    return best;
}

// Compiled for wider vectors too, and chosen when the addon is loaded: a lens reads every logit of every state twice.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE_VECTORS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE_VECTORS
#endif

// The mean of one row's logits under the distribution of another, or of itself. NaN and +infinity come through as NaN.
WIDE_VECTORS expectation expect(const float * p, float p_max, const float * x, float x_max, int32_t n) {
    const float   lowest = -1e20f; // stands in for -infinity, which rules a token out: its weight is 0, and 0 * inf is NaN
    const int32_t piece  = 4096;   // summed in single precision
    double sum = 0.0, dot = 0.0;
    for (int32_t begin = 0; begin < n; begin += piece) {
        const int32_t end = std::min(n, begin + piece);
        float s = 0.0f, d = 0.0f;
#pragma omp simd reduction(+ : s, d)
        for (int32_t i = begin; i < end; ++i) {
            const float w = exponential(p[i] - p_max);
            s += w;
            d += w * std::max(x[i] - x_max, lowest);
        }
        sum += s;
        dot += d;
    }
    return { sum, dot / sum };
}

double log_sum_exp(const float * logits, int32_t n_vocab) {
    const float best = maximum(logits, n_vocab);
    return best + std::log(expect(logits, best, logits, best, n_vocab).sum);
}
