#pragma once

#include <stdint.h>

// e^x for x <= 0 to a relative 2e-7, NaN for NaN: 2^k times a Taylor polynomial of what is left, at most ln(2) / 2. Loops over it
// become vector code. Nothing of the standard library, as kernels.h says.
static inline float exponential(float x) {
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number, left in the lowest bits
    x = x < -87.0f ? -87.0f : x;
    const float t = x * 1.44269504f + magic;
    const float k = t - magic;
    const float r = x - k * 0.693359375f + k * 2.12194440e-4f; // ln(2) in two pieces
    const float p = 1 + r * (1 + r * (1 / 2.0f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f))))));
    const float power = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, p) + (__builtin_bit_cast(uint32_t, t) << 23));
    return x != x ? x : power; // the shifted bits of a NaN can be any number
}
