#pragma once

#include "ggml-backend.h"

#include <cstdint>
#include <vector>

struct ggml_threadpool;

// Products of weights in F32, F16 or BF16 with many rows of states, and flash attention of many rows, which the kernels of
// llama.cpp compute at less than half of what an x86 processor can. A backend of ggml beside its CPU backend: both compute on
// the same memory, and the scheduler gives each node to the first that wants it.

// Makes it known to ggml, once, if the processor has what it takes; every llama_context from then on has one.
void kernel_backend_register();

// Null where the processor lacks what it takes.
ggml_backend_dev_t kernel_device();

// While it lives, backends made by this thread compute on these threads. `pool` may be null: they compute alone then.
struct kernel_threads {
    kernel_threads(int n_threads, ggml_threadpool * pool);
    ~kernel_threads();
};

// While it lives, the decode of this thread multiplies rows of a batch that are the same with the model's weights only once: row i
// is the same as row first[i], itself or an earlier one, until one of them is changed.
struct same_rows {
    explicit same_rows(std::vector<int32_t> first);
    ~same_rows();
};

// A hook writes a row, or lets it see other positions: before anything is computed from that.
void same_rows_changed(int32_t row);
