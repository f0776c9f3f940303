// Blocks of quantised weights as numbers, in the formats of GGUF files: products in the same order as ggml's own functions.

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

static inline __attribute__((always_inline)) float scale_at(const uint8_t * p) {
    uint16_t half;
    memcpy(&half, p, sizeof(half));
    return _cvtsh_ss(half);
}

// 32 signed bytes, each times `scale`.
static inline __attribute__((always_inline)) void scaled(__m256i bytes, __m256 low, __m256 high, float * numbers) {
    const __m128i halves[2] = { _mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1) };
    for (int i = 0; i < 2; ++i) {
        const __m256 scale = i ? high : low;
        _mm256_storeu_ps(numbers + 16 * i,     _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(halves[i]))));
        _mm256_storeu_ps(numbers + 16 * i + 8, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(halves[i], 8)))));
    }
}

// half scale, int8 quants[32]
static void widen_q8_0(const void * blocks, float * numbers, int64_t n) {
    const uint8_t * block = (const uint8_t *) blocks;
    for (int64_t i = 0; i < n; i += 32, block += 34) {
        const __m256 scale = _mm256_set1_ps(scale_at(block));
        scaled(_mm256_loadu_si256((const __m256i *) (block + 2)), scale, scale, numbers + i);
    }
}

// half scale, 32 fifth bits, nibbles[16]: those of numbers 0 to 15 are the low ones; minus 16
static void widen_q5_0(const void * blocks, float * numbers, int64_t n) {
    const uint8_t * block  = (const uint8_t *) blocks;
    const __m256i   spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i   bits   = _mm256_set1_epi64x(0x7fbfdfeff7fbfdfe); // all but the bit of the byte
    for (int64_t i = 0; i < n; i += 32, block += 22) {
        const __m256  scale = _mm256_set1_ps(scale_at(block));
        const __m128i pairs = _mm_loadu_si128((const __m128i *) (block + 6));
        const __m256i low   = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(pairs, 4), pairs), _mm256_set1_epi8(15));
        int fifths;
        memcpy(&fifths, block + 2, sizeof(fifths));
        const __m256i set   = _mm256_or_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(fifths), spread), bits);
        // Where the bit is 0, 16 less: the upper half of the signed byte is all ones.
        const __m256i minus = _mm256_andnot_si256(_mm256_cmpeq_epi8(set, _mm256_set1_epi8(-1)), _mm256_set1_epi8((char) 0xf0));
        scaled(_mm256_or_si256(low, minus), scale, scale, numbers + i);
    }
}

// nibbles[128], pairs of upper bits[64], int8 scales[16], half scale; minus 32
static void widen_q6_k(const void * blocks, float * numbers, int64_t n) {
    const uint8_t * block = (const uint8_t *) blocks;
    const __m256i   four  = _mm256_set1_epi8(15), two = _mm256_set1_epi8(48);
    for (int64_t i = 0; i < n; i += 256, block += 210) {
        const float    d      = scale_at(block + 208);
        const int8_t * scales = (const int8_t *) block + 192;
        for (int half = 0; half < 2; ++half) {
            const __m256i low[2] = { _mm256_loadu_si256((const __m256i *) (block + 64 * half)),
                                     _mm256_loadu_si256((const __m256i *) (block + 64 * half + 32)) };
            const __m256i high   = _mm256_loadu_si256((const __m256i *) (block + 128 + 32 * half));
            const __m256i upper[4] = { _mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2), high, _mm256_srli_epi16(high, 2) };
            for (int part = 0; part < 4; ++part, scales += 2) {
                const __m256i nibbles = _mm256_and_si256(part < 2 ? low[part] : _mm256_srli_epi16(low[part - 2], 4), four);
                const __m256i quants  = _mm256_sub_epi8(_mm256_or_si256(nibbles, _mm256_and_si256(upper[part], two)), _mm256_set1_epi8(32));
                scaled(quants, _mm256_set1_ps(d * scales[0]), _mm256_set1_ps(d * scales[1]), numbers + i + 128 * half + 32 * part);
            }
        }
    }
}
