#pragma once

#include "hooks.h"
#include "qk_norm.h"
#include "rpc.h"
#include "tokenizer.h"
#include "weightless.h"

#include "ggml-cpu.h"
#include "llama.h"

#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// ggml-cpu may be a library that was loaded at run time, so its functions are reached through its registry.
template <typename F>
F cpu_function(const char * name) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    return cpu ? reinterpret_cast<F>(ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name)) : nullptr;
}

// ggml aborts the process where it cannot start the threads that it computes on. Throws NATIVE_FAILURE there instead, by
// starting as many beforehand.
void require_threads(int32_t n_threads);

// A loaded GGUF. Shared by its contexts and vision encoders, freed with the last of them.
struct model {
    llama_model *       handle = nullptr;
    const llama_vocab * vocab  = nullptr;
    std::unique_ptr<const tokenizer> text;
    std::shared_ptr<const qk_norm_weights> qk_norm;
    backend_buffers                        stand_ins; // weightless: the memory of its tensors

    struct options {
        std::string                  path;
        std::string                  device;       // see backends_select
        std::vector<std::string>     rpc;          // servers that take layers too, "1.2.3.4:50052"
        int32_t                      n_gpu_layers; // negative = all
        bool                         weightless;   // see weightless.h
        bool                         floats;       // the weights are F32, F16 or BF16
        std::function<bool(float)>   progress;     // false = abort
        std::shared_ptr<const qk_norm_weights> qk_norm; // null: none
    };

    const rpc_servers servers;

    explicit model(const options & options);
    model(const model &) = delete;

    std::string          metadata(const char * key) const;
    int32_t              positions_per_embedding() const; // 4 with M-RoPE, otherwise 1
    std::string          detokenize(const std::vector<int32_t> & tokens, bool render_special) const;

private:
    struct free_model { void operator()(llama_model * model) const { llama_model_free(model); } };
    std::unique_ptr<llama_model, free_model> owned; // the last member, so the first that is freed
};

// One llama_decode, prepared by src/model/: at most n_ubatch rows, so that one decode is one ubatch and a row of the
// batch is a row of every tensor. All pointers stay valid during the call.
struct decode_job {
    // Before the decode, in this order: forget everything; copy positions [p0, p1) of a sequence to another; forget what a sequence
    // holds from a position on.
    struct seq_range { int32_t src, dst, p0, p1; };
    struct seq_cut { int32_t seq, p0; };
    bool                   clear = false;
    std::vector<seq_range> copies;
    std::vector<seq_cut>   cuts;

    int32_t         n_rows     = 0;
    const int32_t * tokens     = nullptr; // n_rows, or
    const float *   embeddings = nullptr; // n_rows * n_embd_inp
    const int32_t * positions  = nullptr; // n_rows; with embeddings n_rows * positions_per_embedding, dimension by dimension
    const int32_t * sequences  = nullptr; // those of the first row, then of the next
    std::vector<int32_t> sequence_counts; // n_rows
    const uint8_t * outputs    = nullptr; // n_rows, 1 = compute logits
    bool            non_causal = false;
    // Blocks whose part of the cache is needed later on; the others are computed only where something of them is asked for here.
    int32_t         n_blocks   = std::numeric_limits<int32_t>::max();

    std::vector<capture> captures;
    std::vector<patch>   patches;
    // Of each row the first that is the same but for its patches; null: all differ.
    const int32_t *      same = nullptr;
    // Where in its prompt each row is: for every decode of a call that reads or changes attention scores or patterns.
    const int32_t *      places     = nullptr;

    // Row rows[i] is copied to out + offsets[i], n_vocab floats.
    struct logit_copy {
        std::vector<int32_t> rows;
        std::vector<int64_t> offsets;
        float *              out;
    };
    std::vector<logit_copy> logits;

    // The k best tokens of row top_rows[i]: ids and logits at i * k, best first, and log(sum(exp(logits))) at i.
    std::vector<int32_t> top_rows;
    int32_t              top_k     = 0;
    int32_t *            top_ids   = nullptr;
    float *              top_logits = nullptr;
    float *              top_logsumexp = nullptr;
};

struct lens_job;
class output_head;

struct free_threadpool { void operator()(ggml_threadpool * pool) const; };
using unique_threadpool = std::unique_ptr<ggml_threadpool, free_threadpool>;

// Without a pool of its own the CPU backend makes and frees threads for every segment of a graph; hooks, and kernels of our own,
// cut it into as many as they have nodes. Null for one thread.
unique_threadpool make_threadpool(int32_t n_threads);

class context {
public:
    struct options {
        uint32_t n_ctx;
        uint32_t n_ubatch;
        uint32_t n_seq;
        int32_t  n_threads;
        llama_flash_attn_type flash_attention;
        ggml_type kv_type;
    };

    context(std::shared_ptr<model> owner, const options & options);
    ~context();
    context(const context &) = delete;

    void decode(const decode_job & job);

    uint32_t n_ctx() const { return llama_n_ctx(handle); }

    const model & model_of() const { return *owner; }

    // Where states can be read and written.
    const graph_points & hook_points() const { return points; }

    // Standard deviation of the embeddings of up to 4096 tokens, evenly spaced over the vocabulary.
    double embedding_deviation() const;

    // Reads states as the last block's output.
    void lens(const lens_job & job);

    // May be set from any thread: the decode under way ends early and throws ABORTED.
    std::atomic<bool> abort_requested { false };

private:
    // ggml_backend_sched_eval_callback. Installed once, when the context is made, because llama.cpp attaches it to the
    // scheduler when a graph is built and not when a graph is reused.
    static bool on_node(ggml_tensor * tensor, bool ask, void * self);

    output_head & head_of();
    std::optional<capture> before_head(const decode_job & job, const std::vector<int32_t> & rows);

    std::shared_ptr<model> owner;
    llama_context *        handle     = nullptr;
    unique_threadpool      threadpool;
    graph_points           points;
    std::unique_ptr<hook_table> hooks;
    qk_norm                norm;
    bool                   poisoned   = false; // NaN was seen in what a decode returned
    std::unique_ptr<output_head> head;
    bool                   headless   = false; // logits cannot be computed by themselves
    uint32_t               n_seq;
    int32_t                n_threads;

    struct free_context { void operator()(llama_context * context) const { llama_free(context); } };
    std::unique_ptr<llama_context, free_context> owned; // the last member, so the first that is freed
};
