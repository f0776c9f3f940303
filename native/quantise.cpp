#include "quantise.h"

#include "errors.h"

#include <cmath>
#include <string>
#include <vector>

static bool is_source(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

static bool is_destination(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_F16:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q6_K:
            return true;
        default:
            return false;
    }
}

// Quantising one value that is not finite spoils its block, in some types without a trace.
static void check_finite(const float * values, int64_t n, ggml_type type) {
    constexpr float max_half = 65504.0f; // what is above it by less than half a step is rounded down to it
    constexpr float too_much = max_half + 16.0f;
    for (int64_t i = 0; i < n; ++i) {
        if (!std::isfinite(values[i])) {
            throw coded_error("NOT_FINITE", "it holds a value that is not a finite number");
        }
        if (type == GGML_TYPE_F16 && std::fabs(values[i]) >= too_much) {
            throw coded_error("NOT_FINITE", "it holds " + std::to_string(values[i]) + ", which F16 cannot");
        }
    }
}

void quantise_rows(ggml_type source_type, const void * source, size_t source_bytes, ggml_type type, void * destination,
    size_t destination_bytes, int64_t n_per_row) {
    if (!is_source(source_type) || !is_destination(type) || n_per_row < 1 || n_per_row % ggml_blck_size(type) != 0) {
        throw coded_error("INVALID_ARGUMENT", "rows of " + std::to_string(n_per_row) + " values cannot become this type");
    }
    const size_t row_bytes = ggml_row_size(source_type, n_per_row);
    const int64_t n_rows   = static_cast<int64_t>(source_bytes / row_bytes);
    if (source_bytes != n_rows * row_bytes || destination_bytes != n_rows * ggml_row_size(type, n_per_row)) {
        throw coded_error("INVALID_ARGUMENT", "the sizes of source and destination do not fit the rows");
    }
    // A row at a time keeps what is widened in the cache.
    std::vector<float> widened(source_type == GGML_TYPE_F32 ? 0 : n_per_row), read_back(ggml_is_quantized(type) ? n_per_row : 0);
    for (int64_t row = 0; row < n_rows; ++row) {
        const auto * from    = static_cast<const uint8_t *>(source) + row * row_bytes;
        const float * values = widened.data();
        if (source_type == GGML_TYPE_F16) {
            ggml_fp16_to_fp32_row(reinterpret_cast<const ggml_fp16_t *>(from), widened.data(), n_per_row);
        } else if (source_type == GGML_TYPE_BF16) {
            ggml_bf16_to_fp32_row(reinterpret_cast<const ggml_bf16_t *>(from), widened.data(), n_per_row);
        } else {
            values = reinterpret_cast<const float *>(from);
        }
        check_finite(values, n_per_row, type);
        auto * to = static_cast<uint8_t *>(destination) + row * ggml_row_size(type, n_per_row);
        ggml_quantize_chunk(type, values, to, 0, 1, n_per_row, nullptr);
        if (ggml_is_quantized(type)) {
            // Scales of blocks are halves, which large values of a block drive to infinity.
            ggml_get_type_traits(type)->to_float(to, read_back.data(), n_per_row);
            for (float value : read_back) {
                if (!std::isfinite(value)) {
                    throw coded_error("NOT_FINITE", std::string("it holds values too large for ") + ggml_type_name(type));
                }
            }
        }
    }
}
