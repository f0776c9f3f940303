// Compiled for AVX-512, see CMakeLists.txt.
#ifdef __AVX512F__
#define LANES 16
#define TILE_ROWS 12
#include "attention_kernel.h"

const kernels kernels_avx512 = { multiply_any, attend };
#endif
