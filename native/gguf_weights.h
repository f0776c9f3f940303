#pragma once

#include "ggml-backend.h"
#include "ggml.h"
#include "gguf.h"

#include <atomic>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

// A graph while it is built. Inputs are filled once the graph has memory.
class graph_builder {
public:
    graph_builder(ggml_context * ctx, ggml_backend_t device) : ctx(ctx), device(device) {}

    // A tensor of F32 or I32 with these values; `shape` as in ggml, the fastest axis first.
    template <typename T>
    ggml_tensor * input(std::initializer_list<int64_t> shape, const std::vector<T> & values) {
        static_assert(std::is_same_v<T, float> || std::is_same_v<T, int32_t>);
        return input(std::is_same_v<T, float> ? GGML_TYPE_F32 : GGML_TYPE_I32, shape, values.data(), values.size() * sizeof(T));
    }

    // Whether the device itself can compute this; the CPU would take over, at the cost of copies.
    bool runs_on_device(const ggml_tensor * node) const { return ggml_backend_supports_op(device, node); }

    ggml_context * const ctx;

private:
    friend class gguf_weights;

    ggml_backend_t device;

    ggml_tensor * input(ggml_type type, std::initializer_list<int64_t> shape, const void * data, size_t n_bytes);

    std::vector<std::pair<ggml_tensor *, std::vector<uint8_t>>> inputs;
};

// The tensors of a GGUF file in the memory of one device, and graphs computed with them there. The file has been checked
// in TypeScript: names, shapes, types of keys.
class gguf_weights {
public:
    struct options {
        std::string path;
        std::string device; // see backends_select; of several devices the first
        int32_t     n_threads;
    };

    // Throws coded_error GGUF_INVALID, DEVICE_UNKNOWN, or NATIVE_FAILURE where the device has not enough memory.
    explicit gguf_weights(const options & options);
    gguf_weights(const gguf_weights &) = delete;

    // Throw coded_error GGUF_INVALID where the file has no such tensor or key, or the key has another type.
    ggml_tensor * tensor(const std::string & name) const;
    uint32_t      u32(const std::string & key) const;
    float         f32(const std::string & key) const;
    // A list of `n` floats.
    std::vector<float> floats(const std::string & key, size_t n) const;

    // Builds a graph of at most `max_nodes`, computes it on the device (what it cannot do, on the CPU) and returns the
    // values of the tensor that `build` returns, which must be F32. The memory that it computes in is freed at the end.
    // Not thread-safe. Throws coded_error ABORTED, NATIVE_FAILURE.
    std::vector<float> compute(size_t max_nodes, const std::function<ggml_tensor *(graph_builder &)> & build);

    // May be set from any thread: the graph under way ends early, where the CPU computes it.
    std::atomic<bool> abort_requested { false };

private:
    struct free_backend { void operator()(ggml_backend * b) const { ggml_backend_free(b); } };
    struct free_gguf    { void operator()(gguf_context * g) const { gguf_free(g); } };
    struct free_context { void operator()(ggml_context * c) const { ggml_free(c); } };
    struct free_buffer  { void operator()(ggml_backend_buffer * b) const { ggml_backend_buffer_free(b); } };

    int64_t key(const std::string & name, gguf_type type) const;
    void    read_tensors(const std::string & path);

    int32_t n_threads;

    // In the order of their making: a buffer goes before its backend.
    std::unique_ptr<ggml_backend, free_backend>       device; // null when the CPU is the device
    std::unique_ptr<ggml_backend, free_backend>       cpu;
    std::unique_ptr<gguf_context, free_gguf>          file;
    std::unique_ptr<ggml_context, free_context>       tensors;
    std::unique_ptr<ggml_backend_buffer, free_buffer> buffer;
};
