// Compiled for AVX2, FMA and F16C, see CMakeLists.txt.
#ifdef __AVX2__
#define LANES 8
#define TILE_ROWS 6
#include "product_kernel.h"

void product_avx2(const product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch) {
    compute_any(p, m0, m, n0, n, scratch);
}
#endif
