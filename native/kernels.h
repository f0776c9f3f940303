#pragma once

#include <stdint.h>

// Plain C: the kernels are compiled once for each kind of processor, and nothing inline may leak from there into code
// that runs everywhere.

enum float_type { float_32, float_16, float_b16 };

// c[n][m] = sum over k of w[m][k] * x[n][k]. Rows lie `*_stride` numbers of their own type apart.
struct product {
    enum float_type type; // of w; everything else is f32
    const void *    w;
    int64_t         w_stride, m;
    const float *   x;
    int64_t         x_stride, n;
    float *         c;
    int64_t         c_stride;
    int64_t         k;
};

// out[row][head] = the values of the cells, weighted by softmax(scale * q . key + mask) over the cells; `group` heads that follow
// each other read the same keys and values. q and out are f32, the others f16. Strides are bytes.
struct attention {
    const char * q, * k, * v, * mask;
    int64_t      q_row, q_head, k_cell, k_head, v_cell, v_head, mask_row;
    int64_t      n_cells, n_head, group, k_width, v_width;
    float *      out;
    float        scale;
};

enum {
    product_columns = 64, product_panel = 12288, // numbers
    attention_rows = 48, attention_cells = 64, attention_width = 256, // at most, of n * group rows and of k_width and v_width
    kernel_scratch = 4 * (attention_rows * (2 * attention_width + attention_cells + 2) + 2 * attention_cells * attention_width)
};

// The work of one thread; `scratch` holds kernel_scratch bytes, 64-byte aligned.
struct kernels {
    // Columns [m0, m0 + m) and rows [n0, n0 + n) of c, at most product_columns of the former. A number of c is the same sum in the
    // same order whatever part it is computed in.
    void (*multiply)(const struct product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch);
    // Rows [n0, n0 + n), the heads that read `kv_head`.
    void (*attend)(const struct attention * a, int64_t kv_head, int64_t n0, int64_t n, float * scratch);
};

#ifdef __cplusplus
extern "C" {
#endif

extern const struct kernels kernels_avx2, kernels_avx512;

#ifdef __cplusplus
}
#endif
