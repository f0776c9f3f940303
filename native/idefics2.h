#pragma once

#include "gguf_weights.h"

#include <cstdint>
#include <vector>

// Bucket of each of `n` patches along one edge in a grid of `side` position embeddings, as transformers' Idefics2 does it
// since 5.0 (in 4.44, which the paper used, single buckets differ where n is 25, 49, 50, 55 or 58).
std::vector<int32_t> idefics2_positions(int32_t n, int32_t side);

// Rows of embeddings, n_latents * n_embd, of a preprocessed picture: `rgb` holds width * height * 3 bytes. What is left of
// it right and below of whole patches is not read.
// `flash`: flash attention between patches where the device has it, which rounds keys and values to float16 but needs no
// memory for patches * patches * heads scores. All else is computed in float32.
std::vector<float> idefics2_encode(gguf_weights & weights, const uint8_t * rgb, int32_t width, int32_t height, bool flash);
