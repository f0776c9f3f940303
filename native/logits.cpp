#include "logits.h"

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

double log_sum_exp(const float * logits, int32_t n_vocab) {
    const float best = *std::max_element(logits, logits + n_vocab);
    double sum = 0.0;
    for (int32_t i = 0; i < n_vocab; ++i) {
        sum += std::exp(static_cast<double>(logits[i]) - best);
    }
    return best + std::log(sum);
}
