// Compiled for AVX2, FMA and F16C, see CMakeLists.txt.
#ifdef __AVX2__
#define LANES 8
#define TILE_ROWS 6
#include "attention_kernel.h"

const kernels kernels_avx2 = { multiply_any, attend };
#endif
