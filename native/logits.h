#pragma once

#include <cstdint>

// The k best of a row of logits, best first; equal ones by their id.
void top_k_of(const float * logits, int32_t n_vocab, int32_t k, int32_t * ids, float * values);

double log_sum_exp(const float * logits, int32_t n_vocab);
