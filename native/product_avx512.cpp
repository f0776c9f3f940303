// Compiled for AVX-512, see CMakeLists.txt.
#ifdef __AVX512F__
#define LANES 16
#define TILE_ROWS 12
#include "product_kernel.h"

void product_avx512(const product * p, int64_t m0, int64_t m, int64_t n0, int64_t n, float * scratch) {
    compute_any(p, m0, m, n0, n, scratch);
}
#endif
