#pragma once

#include <stdint.h>

// Plain C: product_kernel.h is compiled once for each kind of processor, and nothing inline may leak from there into code
// that runs everywhere.

enum product_type { product_f32, product_f16, product_bf16 };

// c[n][m] = sum over k of w[m][k] * x[n][k]. Rows lie `*_stride` numbers of their own type apart.
struct product {
    enum product_type type; // of w; everything else is f32
    const void *      w;
    int64_t           w_stride, m;
    const float *     x;
    int64_t           x_stride, n;
    float *           c;
    int64_t           c_stride;
    int64_t           k;
};

// Computes columns [m0, m0 + m) and rows [n0, n0 + n) of c. `scratch` holds product_scratch bytes, 64-byte aligned. A number
// of c is the same sum in the same order whatever part it is computed in.
typedef void (*product_kernel)(const struct product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch);

enum { product_columns = 64, product_depth = 384, product_scratch = product_columns * product_depth * 4 };

#ifdef __cplusplus
extern "C" {
#endif

void product_avx2(const struct product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch);
void product_avx512(const struct product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch);

#ifdef __cplusplus
}
#endif
