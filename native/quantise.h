#pragma once

#include "ggml.h"

#include <cstdint>

// Rows of a checkpoint's tensor as a GGUF file stores them. `source` holds n_rows * n_per_row values of F32, F16 or BF16;
// `destination` is written as `type`, which is F32, F16 or one of ggml's block types that need no importance matrix.
// Sizes are in bytes and must be exactly those of the rows. No state: may run on several threads at once.
//
// Throws coded_error INVALID_ARGUMENT for types and sizes that do not fit (ggml would abort the process), NOT_FINITE for a
// value that is not finite, or no longer finite as F16.
void quantise_rows(ggml_type source_type, const void * source, size_t source_bytes, ggml_type type, void * destination,
    size_t destination_bytes, int64_t n_per_row);
