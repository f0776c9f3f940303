#pragma once

#include "ggml-backend.h"

struct ggml_threadpool;

// Products of weights in F32, F16 or BF16 with many rows of states, which the kernels of llama.cpp compute at less than half of
// what an x86 processor can. A backend of ggml beside its CPU backend: both compute on the same memory, and the scheduler gives
// each product to the first that wants it.

// Makes it known to ggml, once, if the processor has what it takes; every llama_context from then on has one.
void product_backend_register();

// Null where the processor lacks what it takes.
ggml_backend_dev_t product_device();

// While it lives, backends made by this thread compute on these threads. `pool` may be null: they compute alone then.
struct product_threads {
    product_threads(int n_threads, ggml_threadpool * pool);
    ~product_threads();
};
