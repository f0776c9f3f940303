#pragma once

#include <cstdint>

// The k best of a row of logits, best first; equal ones by their id.
void top_k_of(const float * logits, int32_t n_vocab, int32_t k, int32_t * ids, float * values);

double log_sum_exp(const float * logits, int32_t n_vocab);

float maximum(const float * x, int32_t n);

struct expectation {
    double sum;  // of w = e^(p - p_max)
    double mean; // of x - x_max under the weights w / sum
};

// The mean of one row's logits under the distribution of another, or of itself. NaN and +infinity come through as NaN.
expectation expect(const float * p, float p_max, const float * x, float x_max, int32_t n);
