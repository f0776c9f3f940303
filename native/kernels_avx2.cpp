// Compiled for AVX2, FMA and F16C, see CMakeLists.txt.
#ifdef __AVX2__
#define LANES 8
#define TILE_ROWS 6
#include "attention_kernel.h"
#include "quants_kernel.h"

const kernels kernels_avx2 = { multiply_any, attend, widen_q8_0, widen_q5_0, widen_q6_k };
#endif
