#pragma once

#include "runtime.h"

#include <memory>
#include <utility>
#include <vector>

// States to read, and where what they say goes.
struct lens_job {
    // whole: last block's output -> logits; norm: last block's output -> final norm; head: final norm -> logits.
    enum class part { whole, norm, head, count };

    part          tail   = part::whole;
    int32_t       n_rows = 0;
    const float * states = nullptr; // n_rows * n_embd

    float * normed = nullptr; // part::norm: n_rows * n_embd, and nothing of the following

    // The k best tokens: ids and logits at row * k, best first.
    int32_t   top_k      = 0;
    int32_t * top_ids    = nullptr;
    float *   top_logits = nullptr;

    // Chosen tokens: their logits and ranks (0 = best) at row * n_tokens.
    std::vector<int32_t> tokens;
    float *   token_logits = nullptr;
    int32_t * token_ranks  = nullptr;

    float * logsumexp = nullptr; // n_rows; null: the logits are computed and nothing is read from them (for benchmarks)
    float * entropy   = nullptr; // n_rows, nats

    // KL(reference || row) in nats; reference[row] is the index of a row of this job.
    const int32_t * reference = nullptr;
    float *         kl        = nullptr;
};

// The model's own final norm, output head, soft-caps and scales: the part of llama.cpp's graph behind the last block, run
// by itself on states of any layer. Exact for every architecture, because it is that graph and not a rebuilt one.
class output_head {
public:
    output_head(std::shared_ptr<model> owner, llama_context * context, int32_t n_threads, ggml_threadpool * threadpool,
        std::string last_block);
    ~output_head();
    output_head(const output_head &) = delete;

    void run(const lens_job & job);

    // Makes the graph of a part for a number of rows. Throws coded_error ARCHITECTURE_UNSUPPORTED, LENS_UNSUPPORTED or
    // HOOK_UNSUPPORTED where a model has no such part by itself.
    void prepare(lens_job::part part, int32_t n_rows);

    // Logits of states whose part was prepared, n_rows * n_vocab floats until the next call.
    const float * logits(const float * states);

private:
    // The graph for one part and number of rows.
    struct tail {
        lens_job::part part;
        ggml_context * context = nullptr;
        ggml_cgraph *  graph   = nullptr;
        ggml_tensor *  input   = nullptr;
        ggml_tensor *  output  = nullptr;
        std::vector<std::pair<ggml_tensor *, ggml_tensor>> fresh; // the tensors as they were made
        ~tail();
    };

    void compute(const float * states);

    std::unique_ptr<tail> clone_tail(lens_job::part part, int32_t n_rows);

    std::shared_ptr<model>      owner;
    llama_context *             context;
    int32_t                     n_threads;
    std::string                 last_block; // name of the node with its output; empty: there is none
    std::unique_ptr<tail>       graph; // of the last job
    std::vector<float>          copied; // logits of a device
    std::vector<ggml_backend_t> backends;
    ggml_backend_sched_t        sched = nullptr;
};
