#pragma once

#include "runtime.h"

#include <memory>
#include <vector>

// What one row of states says when it is read as if it were the last block's output.
struct lens_job {
    int32_t       n_rows = 0;
    const float * states = nullptr; // n_rows * n_embd

    // The k best tokens: ids and logits at row * k, best first.
    int32_t   top_k      = 0;
    int32_t * top_ids    = nullptr;
    float *   top_logits = nullptr;

    // Chosen tokens: their logits and ranks (0 = best) at row * n_tokens.
    std::vector<int32_t> tokens;
    float *   token_logits = nullptr;
    int32_t * token_ranks  = nullptr;

    float * logsumexp = nullptr; // n_rows
    float * entropy   = nullptr; // n_rows, nats

    // KL(reference || row) in nats; reference[row] is the index of a row of this job, or -1 for none (NaN).
    const int32_t * reference = nullptr;
    float *         kl        = nullptr;

    float * logits = nullptr; // n_rows * n_vocab, or null
};

// The model's own final norm, output head, soft-caps and scales: the part of llama.cpp's graph behind the last block, run
// by itself on states of any layer. Exact for every architecture, because it is that graph and not a rebuilt one.
class output_head {
public:
    output_head(std::shared_ptr<model> owner, llama_context * context, int32_t n_threads, ggml_threadpool * threadpool);
    ~output_head();
    output_head(const output_head &) = delete;

    void run(const lens_job & job);

private:
    // The graph for one number of rows.
    struct tail {
        ggml_context * context = nullptr;
        ggml_cgraph *  graph   = nullptr;
        ggml_tensor *  input   = nullptr;
        ggml_tensor *  output  = nullptr;
        ~tail();
    };

    std::unique_ptr<tail> clone_tail(int32_t n_rows);

    std::shared_ptr<model>      owner;
    llama_context *             context;
    int32_t                     n_threads;
    std::unique_ptr<tail>       graph; // for the number of rows of the last job
    std::vector<float>          logits;
    std::vector<ggml_backend_t> backends;
    ggml_backend_sched_t        sched = nullptr;
};
