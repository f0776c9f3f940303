#pragma once

#include "ggml-backend.h"
#include "llama.h"

#include <memory>
#include <string>
#include <vector>

struct free_backend_buffer { void operator()(ggml_backend_buffer * b) const { ggml_backend_buffer_free(b); } };
using backend_buffers = std::vector<std::unique_ptr<ggml_backend_buffer, free_backend_buffer>>;

// Gives a model that was loaded with `no_alloc` memory for its tensors, and makes it one that computes: small tensors have
// the values of the file, the others are zeros that nobody wrote, so that they take no memory where the system maps zeros.
// Such a model is tried before the real one is loaded: its graph is the same, and what ggml asserts on is there.
// The buffers must outlive the model. Throws coded_error MODEL_LOAD.
backend_buffers give_weightless_memory(llama_model * model, const std::string & path);
